/* What PyTorch finds of an NVIDIA driver: a libcuda.so.1 that starts as FAKE_CUDA_ERROR says, which is one of CUDA's
   numbers (0: it starts; 100: no card; 802: system not yet initialized; 999: unknown error), and is of the CUDA version
   FAKE_CUDA_VERSION (11040: 11.4). The texts that PyTorch makes of that are its own. */
#include <stdlib.h>
#include <string.h>

int cuInit(unsigned flags) { return atoi(getenv("FAKE_CUDA_ERROR")); }
int cuDriverGetVersion(int *version) { *version = atoi(getenv("FAKE_CUDA_VERSION")); return 0; }
static int whatever_else(void) { return 999; }

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long flags, void *status) {
    *function = whatever_else;
    if (!strcmp(name, "cuInit")) *function = cuInit;
    if (!strcmp(name, "cuDriverGetVersion")) *function = cuDriverGetVersion;
    if (!strcmp(name, "cuGetProcAddress")) *function = cuGetProcAddress_v2;
    return 0;
}
int cuGetProcAddress(const char *name, void **function, int version, unsigned long flags) {
    return cuGetProcAddress_v2(name, function, version, flags, 0);
}
