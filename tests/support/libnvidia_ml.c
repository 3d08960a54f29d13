/* A stand-in for NVIDIA's library with two GPUs: 100 W and 300 W, an energy counter, or only the power. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct { unsigned int gpu, memory; } utilization_t;
typedef struct { unsigned long long total, free, used; } memory_t;
enum { SUCCESS = 0, INVALID = 2, NOT_SUPPORTED = 3 };
static int numbers[2] = {0, 1};

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}
static double watts(void *gpu) { return *(int *)gpu == 0 ? 100.0 : 300.0; }

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlInitWithFlags(unsigned int flags) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return "an error"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **gpu) {
    if (index > 1) return INVALID;
    *gpu = &numbers[index];
    return SUCCESS;
}
int nvmlDeviceGetUUID(void *gpu, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-0000-%d", *(int *)gpu);
    return SUCCESS;
}
int nvmlDeviceGetTotalEnergyConsumption(void *gpu, unsigned long long *millijoules) {
    if (getenv("NO_COUNTER")) return NOT_SUPPORTED;
    *millijoules = (unsigned long long)(seconds() * watts(gpu) * 1000.0);
    return SUCCESS;
}
int nvmlDeviceGetPowerUsage(void *gpu, unsigned int *milliwatts) {
    *milliwatts = (unsigned int)(watts(gpu) * 1000.0);
    return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(void *gpu, utilization_t *rates) {
    rates->gpu = 50;
    rates->memory = 10;
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(void *gpu, memory_t *memory) {
    memory->total = 80ULL << 30;
    memory->used = 1ULL << 30;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
