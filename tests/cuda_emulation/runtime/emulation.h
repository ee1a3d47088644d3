/* What tests may ask of the emulated device beyond the CUDA runtime. Callable from C, C++ and ctypes. */
#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The report of the defect that a kernel was stopped for, "" if none; until it is taken, every call of the runtime
   fails. The text is valid until the next call. */
const char* cuda_emulation_take_defect(void);

/* "round-robin" (the default), "reverse", "random" or "random:SEED"; returns 0, or -1 for anything else. The
   environment variable CUDA_EMULATION_SCHEDULE sets the first one. */
int cuda_emulation_set_schedule(const char* schedule);

/* The devices of the machine: "none" or names separated by commas, "sm_80" (the default), "sm_75,sm_90", ..., each with
   its number of multiprocessors if that is to be another, "sm_80:7"; returns 0, or -1 for what is none of these. The
   environment variable CUDA_EMULATION_DEVICES sets the first ones. */
int cuda_emulation_set_devices(const char* devices);

/* Where the host can read and write the bytes of device memory; NULL if the address is not allocated. */
void* cuda_emulation_host_view(const void* device_address);
/* What the host writes there counts only when it says so. */
void cuda_emulation_mark_initialised(const void* device_address, size_t bytes);
/* Has each of the bytes been written, by a kernel, a copy or a memset? */
int cuda_emulation_is_initialised(const void* device_address, size_t bytes);

/* If the environment variable CUDA_EMULATION_REPORT names a file, the sectors of global memory and the wavefronts of
   shared memory that each source line moves are counted and written to it, as JSON; at the end, or with this call so
   far. */
void cuda_emulation_write_report(void);

/* The same counts for the program itself, from now on; they slow kernels down. */
void cuda_emulation_count(void);
/* Sectors of 32 bytes that the requests of warps have moved to or from this allocation since. */
unsigned long long cuda_emulation_sectors(const void* allocation);
/* Wavefronts of shared memory since, and how few would have done. */
unsigned long long cuda_emulation_wavefronts(unsigned long long* ideal);

/* Allocations not freed yet. */
size_t cuda_emulation_allocations(void);
/* Kernels launched on a stream so far, those of graphs included. */
size_t cuda_emulation_launches(void* stream);

#ifdef __cplusplus
}
#endif
