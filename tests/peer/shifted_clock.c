// LD_PRELOAD: the clock of a program of the tests, shifted by so many seconds. For certificates
// that have expired: those of the simulated TEE end in 2049, and their issuer's key is gone.
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec* out) {
  const long result = syscall(SYS_clock_gettime, clock, out);
  const char* shift = getenv("TALARIA_TEST_CLOCK_SHIFT_S");
  if (result == 0 && clock == CLOCK_REALTIME && shift != NULL) out->tv_sec += atol(shift);
  return (int)result;
}

time_t time(time_t* out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out != NULL) *out = now.tv_sec;
  return now.tv_sec;
}
