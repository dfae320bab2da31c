/* What the shim is linked with instead of the rest of Mesa. */
#include <stdlib.h>
#include <time.h>

struct { int x[64]; } _util_cpu_caps_state;
void _util_cpu_detect_once(void) {}
unsigned short _mesa_float_to_half_rtz_slow(float x) { return 0; }
int c23_timespec_get(struct timespec *ts, int base) { clock_gettime(CLOCK_REALTIME, ts); return base; }

#define UNUSED(name) void name(void) { abort(); }
UNUSED(blob_copy_bytes) UNUSED(blob_init) UNUSED(blob_read_uint32) UNUSED(blob_reader_init) UNUSED(blob_write_bytes) UNUSED(blob_write_uint32)

/* The driver asks for buffers of no bytes, for which the shim has no address. */
struct shim_bo;
int __real_drm_shim_bo_init(struct shim_bo *bo, size_t size);
int __wrap_drm_shim_bo_init(struct shim_bo *bo, size_t size) { return __real_drm_shim_bo_init(bo, size ? size : 4096); }
