/* See dev/intel_device_info.h. */
