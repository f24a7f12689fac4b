/* The C interface of libtalaria-cuda.so: products of product.h on an NVIDIA GPU. The programs load
 * the library when a GPU is asked for (device_cuda.cc), so that they run where there is neither a
 * GPU nor a driver.
 *
 *   talaria_cuda_abi -> talaria_cuda_create -> talaria_cuda_add_weights, _set_columns ... ->
 * talaria_cuda_multiply ...
 *
 * Every function that can fail returns a TALARIA_CUDA_* code and, unless that is OK, says in
 * `error` what happened. Calls on one handle may come from any thread and wait for each other. No
 * call reads or writes a buffer of the caller after it returned. */
#ifndef TALARIA_GEMM_CUDA_TALARIA_CUDA_H_
#define TALARIA_GEMM_CUDA_TALARIA_CUDA_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

#define TALARIA_CUDA_ABI 2

enum {
  TALARIA_CUDA_OK = 0,
  TALARIA_CUDA_NO_DRIVER = 1, /* no NVIDIA driver, or one that is too old for this library */
  TALARIA_CUDA_NO_DEVICE = 2, /* the driver has no GPU of that number */
  TALARIA_CUDA_UNSUPPORTED =
      3, /* a GPU before compute capability 8.0, or without code for it in this library */
  TALARIA_CUDA_OUT_OF_MEMORY = 4, /* of the GPU, or memory that it can reach; the handle lives */
  TALARIA_CUDA_INVALID = 5,       /* arguments that this header does not allow */
  TALARIA_CUDA_LOST = 6           /* the GPU failed; every later call on the handle says so too */
};

typedef struct talaria_cuda talaria_cuda; /* a GPU in use */
typedef struct talaria_cuda_weights
    talaria_cuda_weights; /* int8 [padded_outputs][d], resident on it */

typedef struct {
  char text[400]; /* one sentence, zero-terminated */
} talaria_cuda_error;

typedef struct {
  char name[256];
  int capability; /* 90 for 9.0 */
  int multiprocessors;
  int driver, runtime; /* versions as CUDA has them: 13000 for 13.0 */
  uint64_t memory_bytes, free_bytes;
  uint64_t weight_bytes; /* of memory_bytes, what weights take */
} talaria_cuda_info;

/* Rows of one request. */
typedef struct {
  const uint8_t* planes; /* [rows][6][d padded to 64], u8 digits, low one first */
  size_t rows;           /* >= 1 */
  uint8_t* out;          /* [rows][padded_outputs] x 6 bytes, canonical residues */
} talaria_cuda_rows;

/* TALARIA_CUDA_ABI of the library; everything below may be called only if it is the caller's. */
int talaria_cuda_abi(void);

/* How many GPUs there are; at least one. NO_DRIVER, NO_DEVICE. */
int talaria_cuda_count(int* count, talaria_cuda_error* error);

/* GPU number `ordinal`, as CUDA counts them. NO_DRIVER, NO_DEVICE, UNSUPPORTED, OUT_OF_MEMORY,
 * LOST. Takes memory for staging (48 MiB, and as much of the host's, which stays locked) and keeps
 * it. */
int talaria_cuda_create(int ordinal, talaria_cuda** gpu, talaria_cuda_error* error);
/* Frees its weights too. */
void talaria_cuda_destroy(talaria_cuda* gpu);
int talaria_cuda_describe(talaria_cuda* gpu, talaria_cuda_info* info, talaria_cuda_error* error);

/* Room for weights, all zero: 1 <= d <= 65536, padded_outputs a multiple of 32 in 32..2^21. Takes
 * d padded to 64 times padded_outputs padded to 128 bytes of the GPU. INVALID, OUT_OF_MEMORY, LOST.
 */
int talaria_cuda_add_weights(talaria_cuda* gpu, uint32_t d, uint32_t padded_outputs,
                             talaria_cuda_weights** weights, talaria_cuda_error* error);
void talaria_cuda_remove_weights(talaria_cuda_weights* weights);
/* Columns [first, first + count) from column-major int8 [count][d], -127..127; the rest of the last
 * 32 columns touched becomes zero. `first` is a multiple of 32. INVALID, LOST. */
int talaria_cuda_set_columns(talaria_cuda_weights* weights, uint32_t first, uint32_t count,
                             const int8_t* columns, talaria_cuda_error* error);

/* The most rows of one call, all blocks together: some milliseconds. */
size_t talaria_cuda_max_rows(const talaria_cuda_weights* weights);
/* Y = X * W mod q for 1 to talaria_cuda_max_rows rows in all. No OUT_OF_MEMORY: it allocates
 * nothing. INVALID, LOST. */
int talaria_cuda_multiply(talaria_cuda_weights* weights, const talaria_cuda_rows* blocks,
                          size_t count, talaria_cuda_error* error);

/* How long a GPU works before anything is timed: an idle one has a sixth of its clock. */
#define TALARIA_CUDA_WARM_MS 100
/* For scripts/test-gpu: the time of the kernel alone, in microseconds a product of `rows` rows of
 * random digits, the mean of `repetitions` that rotate over `count` matrices of one shape on one
 * GPU, so that weights come from memory. OUT_OF_MEMORY, INVALID, LOST. */
int talaria_cuda_measure(talaria_cuda_weights* const* weights, size_t count, uint32_t rows,
                         uint32_t repetitions, double* microseconds, talaria_cuda_error* error);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif /* TALARIA_GEMM_CUDA_TALARIA_CUDA_H_ */
