// What a kernel is: how one instruction set lays out weights and rows, and multiplies them.
// Internal to talaria/gemm. A kernel file is compiled with -m flags of its own, so nothing that the
// linker may merge with the rest of the program (inline functions, templates of the standard
// library) may come from it: plain pointers, functions in unnamed namespaces.
#ifndef TALARIA_GEMM_PRODUCT_KERNELS_H_
#define TALARIA_GEMM_PRODUCT_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace talaria::gemm {

// One call of Kernel::multiply: all `rows` times consecutive panels of 32 columns.
struct PanelRun {
  const int8_t* panels;  // [panel_count] of Kernel::panel_bytes, 64-byte aligned
  size_t panel_count;
  size_t padded_inputs;   // a multiple of 64
  const uint8_t* packed;  // [rows] of Kernel::packed_row_bytes, 64-byte aligned
  size_t rows;
  uint8_t* out;  // row r, panel p: 192 bytes at out + r * out_stride + 192 p, and nothing else is
                 // written
  size_t out_stride;  // bytes
};

// Functions may run on several threads at once on disjoint output.
struct Kernel {
  const char* name;
  size_t chunk_bytes;     // of packed rows: they stay in cache while all weights pass
  size_t min_chunk_rows;  // from here on passing the weights again costs next to nothing
  size_t (*panel_bytes)(size_t padded_inputs);       // a multiple of 64
  size_t (*packed_row_bytes)(size_t padded_inputs);  // a multiple of 64
  // `count` <= 32 columns [count][d] into a panel; the rest of the panel becomes zero columns.
  void (*pack_panel)(const int8_t* columns, size_t d, size_t count, int8_t* panel);
  // [rows][6][padded_inputs] digit planes into [rows] packed rows.
  void (*pack_rows)(const uint8_t* planes, size_t rows, size_t padded_inputs, uint8_t* packed);
  void (*multiply)(const PanelRun& run);
};

extern const Kernel kPortableKernel;
extern const Kernel kAvx2Kernel;  // in builds for x86-64
extern const Kernel kAvx512Kernel;
extern const Kernel kAmxKernel;

// Of the kernels that are bound by their arithmetic.
inline constexpr size_t kChunkBytes = size_t{6} << 20;
inline constexpr size_t kMinChunkRows = 64;
inline constexpr size_t kPanelColumns = 32;
inline constexpr size_t kPanelOutBytes = 32 * 6;

}  // namespace talaria::gemm

#endif  // TALARIA_GEMM_PRODUCT_KERNELS_H_
