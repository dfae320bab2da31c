/* What the shim of Mesa asks of Intel's library about a GPU, for those that are looked at: its library is built of generated sources, which this is
 * not worth. Numbers: the kernel's i915 driver and Mesa's src/intel/dev/intel_device_info.c. */
#pragma once
#include <stdbool.h>
#include <string.h>

enum { INTEL_PLATFORM_CHV = -1 };
enum { INTEL_ENGINE_CLASS_RENDER = 0, INTEL_ENGINE_CLASS_COPY = 1 };

struct intel_device_info {
   int ver, platform;
   unsigned timestamp_frequency, num_slices, num_subslices[8], max_eus_per_subslice;
   bool has_local_mem;
   unsigned pci_device_id;
};

static const struct {
   const char *name;
   struct intel_device_info info;
} known[] = {
   {"tgl", {12, 0, 19200000, 1, {6}, 16, false, 0x9a49}},
   {"dg2", {12, 0, 19200000, 8, {4, 4, 4, 4, 4, 4, 4, 4}, 16, true, 0x56a0}},
};

static inline int
intel_device_name_to_pci_device_id(const char *name)
{
   for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
      if (!strcmp(known[i].name, name))
         return known[i].info.pci_device_id;
   return -1;
}

static inline bool
intel_get_device_info_from_pci_id(int id, struct intel_device_info *info)
{
   for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
      if ((int)known[i].info.pci_device_id == id) {
         *info = known[i].info;
         return true;
      }
   return false;
}

/* No files of other devices. */
struct drm_intel_stub_devinfo { unsigned long addr; unsigned size; };
static inline bool
intel_device_info_from_json(const char *path, struct intel_device_info *info)
{
   return false;
}
