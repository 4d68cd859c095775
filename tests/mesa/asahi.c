// A library that pretends there is an Apple GPU under Linux (kernel module asahi), for Mesa's compiler. Nothing is computed. It
// is put on top of Mesa's src/drm-shim, whose own such library is of an older kernel interface.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "asahi_drm.h"
#include "drm-shim/drm_shim.h"

bool drm_shim_driver_prefers_first_render_node = true;

// An M2's.
static const struct drm_asahi_params_global params = {
   .features = DRM_ASAHI_FEATURE_SOFT_FAULTS,
   .gpu_generation = 14,
   .gpu_variant = 'G',
   .chip_id = 0x8112,
   .num_dies = 1,
   .num_clusters_total = 1,
   .num_cores_per_cluster = 10,
   .max_frequency_khz = 1398000,
   .core_masks = {0x3ff},
   .vm_start = 0x4000,
   .vm_end = 0x700000000000,
   .vm_kernel_min_size = 0x20000000,
   .max_commands_per_submission = 64,
   .max_attachments = 16,
   .command_timestamp_frequency_hz = 1000000000,
};

static int noop(int fd, unsigned long request, void *arg) { return 0; }

static int get_params(int fd, unsigned long request, void *arg)
{
   struct drm_asahi_get_params *get = arg;
   memcpy((void *)(uintptr_t)get->pointer, &params, get->size < sizeof(params) ? get->size : sizeof(params));
   return 0;
}

static int vm_create(int fd, unsigned long request, void *arg)
{
   ((struct drm_asahi_vm_create *)arg)->vm_id = 1;
   return 0;
}

static int gem_create(int fd, unsigned long request, void *arg)
{
   struct drm_asahi_gem_create *create = arg;
   struct shim_bo *bo = calloc(1, sizeof(*bo));
   drm_shim_bo_init(bo, create->size);
   create->handle = drm_shim_bo_get_handle(drm_shim_fd_lookup(fd), bo);
   drm_shim_bo_put(bo);
   return 0;
}

static int gem_mmap_offset(int fd, unsigned long request, void *arg)
{
   struct drm_asahi_gem_mmap_offset *map = arg;
   struct shim_fd *shim_fd = drm_shim_fd_lookup(fd);
   struct shim_bo *bo = drm_shim_bo_lookup(shim_fd, map->handle);
   map->offset = drm_shim_bo_get_mmap_offset(shim_fd, bo);
   drm_shim_bo_put(bo);
   return 0;
}

static int gem_bind_object(int fd, unsigned long request, void *arg)
{
   ((struct drm_asahi_gem_bind_object *)arg)->object_handle = 1;
   return 0;
}

static int queue_create(int fd, unsigned long request, void *arg)
{
   ((struct drm_asahi_queue_create *)arg)->queue_id = 1;
   return 0;
}

static ioctl_fn_t ioctls[] = {
   [DRM_ASAHI_GET_PARAMS] = get_params,
   [DRM_ASAHI_GET_TIME] = noop,
   [DRM_ASAHI_VM_CREATE] = vm_create,
   [DRM_ASAHI_VM_DESTROY] = noop,
   [DRM_ASAHI_VM_BIND] = noop,
   [DRM_ASAHI_GEM_CREATE] = gem_create,
   [DRM_ASAHI_GEM_MMAP_OFFSET] = gem_mmap_offset,
   [DRM_ASAHI_GEM_BIND_OBJECT] = gem_bind_object,
   [DRM_ASAHI_QUEUE_CREATE] = queue_create,
   [DRM_ASAHI_QUEUE_DESTROY] = noop,
   [DRM_ASAHI_SUBMIT] = noop,
};

void drm_shim_driver_init(void)
{
   shim_device.bus_type = DRM_BUS_PLATFORM;
   shim_device.driver_name = "asahi";
   shim_device.driver_ioctls = ioctls;
   shim_device.driver_ioctl_count = sizeof(ioctls) / sizeof(ioctls[0]);
   drm_shim_override_file("DRIVER=asahi\nOF_FULLNAME=/soc/gpu\nOF_COMPATIBLE_0=apple,agx-t8112\nOF_COMPATIBLE_N=1\n",
                          "/sys/dev/char/%d:%d/device/uevent", DRM_MAJOR, render_node_minor);
}
