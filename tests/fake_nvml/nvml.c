/* A stand-in for libnvidia-ml.so.1 that has the GPUs a text file says, read again at every call.
 *
 * The file's path is in FAKE_NVML_STATE; tests/fake_gpu.py writes it. One "key value" a line:
 *
 *   init CODE        what nvmlInit answers             driver TEXT, cuda NUMBER
 *   generation N     a GPU handle taken under another one is lost until NVML is initialised again
 *   fail NAME CODE   that function answers CODE        hang NAME   it does not return while this line is there
 *   gpu              begins a GPU, in NVML's order     mig         begins an instance of that GPU
 *
 * and below "gpu" or "mig": uuid, name, bus, total, free, reserved (MiB), busy (%), temperature, power, limit (mW),
 * compute_mode, mig_mode, ecc VOLATILE_CORRECTED VOLATILE_UNCORRECTED AGGREGATE_CORRECTED AGGREGATE_UNCORRECTED,
 * slowdown (degrees), reasons (bits, why its clocks are low), uses (programs' shares of its time are told), use PID PERCENT,
 * process PID MIB (-1: not told), graphics PID MIB, xid CODE, error CODE (of every call), fail, hang.
 * What is not there is NOT_SUPPORTED. Who ends NVML while a call hangs in it is aborted, as a real driver might.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15
};
enum { MOST_UNITS = 64, MOST_RULES = 16, MOST_PROCESSES = 32, TEXT = 128 };
#define MIB (1024ULL * 1024ULL)

typedef unsigned long long u64;
typedef struct { char name[TEXT]; int code; } Rule; /* code -1: hang */
typedef struct { unsigned pid; long long mib; int graphics; } Process;
typedef struct { unsigned pid, percent; } Use;

typedef struct {                        /* a GPU or a MIG instance */
    int parent;                         /* its GPU's place; -1: it is one itself */
    char uuid[TEXT], name[TEXT], bus[TEXT];
    long long total, free, reserved, busy, temperature, power, limit, compute_mode, mig_mode, persistent; /* -1: not there */
    long long slowdown, reasons;
    int use_count;                      /* -1: not told */
    Use uses[MOST_PROCESSES];
    long long ecc[4];
    int error, xid_count, xids[MOST_RULES];
    int rule_count;
    Rule rules[MOST_RULES];
    int process_count;
    Process processes[MOST_PROCESSES];
} Unit;

typedef struct {
    int init, cuda, rule_count, unit_count;
    long generation;
    char driver[TEXT];
    Rule rules[MOST_RULES];
    Unit units[MOST_UNITS];
} State;

typedef struct Handle { char uuid[TEXT]; long generation; int delivered; struct Handle *next; } Handle;

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static Handle *handles;
static int users, hanging;
static long generation_at_init;

static void add_rule(State *state, Unit *unit, const char *name, int code) {
    Rule *rules = unit ? unit->rules : state->rules;
    int *count = unit ? &unit->rule_count : &state->rule_count;
    if (*count < MOST_RULES) {
        snprintf(rules[*count].name, TEXT, "%s", name);
        rules[(*count)++].code = code;
    }
}

static void add_process(Unit *unit, const char *value, int graphics) {
    Process *one = &unit->processes[unit->process_count];
    if (unit->process_count < MOST_PROCESSES && sscanf(value, "%u %lld", &one->pid, &one->mib) == 2) {
        one->graphics = graphics;
        unit->process_count++;
    }
}

static Unit *add_unit(State *state, int is_mig) {
    if (state->unit_count == MOST_UNITS) abort();
    Unit *unit = &state->units[state->unit_count];
    unit->parent = -1;
    if (is_mig)
        for (int i = 0; i < state->unit_count; i++)
            if (state->units[i].parent < 0) unit->parent = i;
    unit->total = unit->free = unit->reserved = unit->busy = unit->temperature = unit->power = unit->limit = -1;
    unit->compute_mode = unit->mig_mode = unit->ecc[0] = unit->ecc[1] = unit->ecc[2] = unit->ecc[3] = -1;
    unit->slowdown = unit->reasons = unit->use_count = unit->persistent = -1;
    state->unit_count++;
    return unit;
}

static void read_line(State *state, Unit **unit, const char *key, const char *value) {
    char name[TEXT] = "";
    int code = 0;
    if (!strcmp(key, "gpu") || !strcmp(key, "mig")) *unit = add_unit(state, key[0] == 'm');
    else if (!strcmp(key, "fail") && sscanf(value, "%127s %d", name, &code) == 2) add_rule(state, *unit, name, code);
    else if (!strcmp(key, "hang")) add_rule(state, *unit, value, -1);
    else if (!*unit) {
        if (!strcmp(key, "init")) state->init = atoi(value);
        else if (!strcmp(key, "cuda")) state->cuda = atoi(value);
        else if (!strcmp(key, "generation")) state->generation = atol(value);
        else if (!strcmp(key, "driver")) snprintf(state->driver, TEXT, "%s", value);
    } else {
        Unit *of = *unit;
        struct { const char *key; long long *to; } numbers[] = {
            {"total", &of->total}, {"free", &of->free}, {"reserved", &of->reserved}, {"busy", &of->busy},
            {"temperature", &of->temperature}, {"power", &of->power}, {"limit", &of->limit},
            {"compute_mode", &of->compute_mode}, {"mig_mode", &of->mig_mode}, {"slowdown", &of->slowdown},
            {"reasons", &of->reasons}, {"persistent", &of->persistent},
        };
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            if (!strcmp(key, numbers[i].key)) *numbers[i].to = atoll(value);
        if (!strcmp(key, "uuid")) snprintf(of->uuid, TEXT, "%s", value);
        else if (!strcmp(key, "name")) snprintf(of->name, TEXT, "%s", value);
        else if (!strcmp(key, "bus")) snprintf(of->bus, TEXT, "%s", value);
        else if (!strcmp(key, "error")) of->error = atoi(value);
        else if (!strcmp(key, "ecc"))
            sscanf(value, "%lld %lld %lld %lld", &of->ecc[0], &of->ecc[1], &of->ecc[2], &of->ecc[3]);
        else if (!strcmp(key, "process")) add_process(of, value, 0);
        else if (!strcmp(key, "graphics")) add_process(of, value, 1);
        else if (!strcmp(key, "uses")) of->use_count = 0;
        else if (!strcmp(key, "use") && of->use_count >= 0 && of->use_count < MOST_PROCESSES) {
            Use *one = &of->uses[of->use_count];
            if (sscanf(value, "%u %u", &one->pid, &one->percent) == 2) of->use_count++;
        }
        else if (!strcmp(key, "xid") && of->xid_count < MOST_RULES) of->xids[of->xid_count++] = atoi(value);
    }
}

static State *read_state(void) {
    State *state = calloc(1, sizeof *state);
    Unit *unit = NULL;
    const char *path = getenv("FAKE_NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[2 * TEXT];
    if (!file) {
        state->init = DRIVER_NOT_LOADED;
        return state;
    }
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *value = strchr(line, ' ');
        if (value) *value++ = 0;
        read_line(state, &unit, line, value ? value : "");
    }
    fclose(file);
    return state;
}

static Unit *unit_of(State *state, const Handle *handle) {
    for (int i = 0; i < state->unit_count; i++)
        if (!strcmp(state->units[i].uuid, handle->uuid)) return &state->units[i];
    return NULL;
}

static int ruled(const Rule *rules, int count, const char *function) {
    for (int i = 0; i < count; i++)
        if (!strcmp(rules[i].name, function)) return rules[i].code;
    return 0;
}

/* The state, once nothing says that ``function`` hangs; ``*code`` is what it must answer, 0 if it may go on.
 * With a ``handle`` also ``*unit``, what it stands for. The caller frees the state. */
static State *enter(const char *function, Handle *handle, Unit **unit, int *code) {
    for (;;) {
        State *state = read_state();
        Unit *found = handle ? unit_of(state, handle) : NULL;
        *code = ruled(state->rules, state->rule_count, function);
        if (!*code && found) *code = ruled(found->rules, found->rule_count, function);
        if (*code == -1) {
            free(state);
            __atomic_add_fetch(&hanging, 1, __ATOMIC_SEQ_CST);
            usleep(10000);
            __atomic_sub_fetch(&hanging, 1, __ATOMIC_SEQ_CST);
            continue;
        }
        if (!*code && strncmp(function, "nvmlInit", 8) && !users) *code = UNINITIALIZED;
        if (!*code && handle) {
            if (!found || handle->generation != state->generation) *code = GPU_IS_LOST;
            else if (found->error) *code = found->error;
            else if (found->parent >= 0 && state->units[found->parent].error)
                *code = state->units[found->parent].error;
        }
        if (unit) *unit = found;
        return state;
    }
}

#define GLOBAL(function) \
    int code; \
    State *state = enter(#function, NULL, NULL, &code)
#define OF_UNIT(function) \
    int code; \
    Unit *unit; \
    State *state = enter(#function, handle, &unit, &code)
#define LEAVE \
    free(state); \
    return code

static Handle *handle_for(const char *uuid) {
    pthread_mutex_lock(&guard);
    Handle *handle = handles;
    while (handle && (strcmp(handle->uuid, uuid) || handle->generation != generation_at_init)) handle = handle->next;
    if (!handle) {
        handle = calloc(1, sizeof *handle);
        snprintf(handle->uuid, TEXT, "%s", uuid);
        handle->generation = generation_at_init;
        handle->next = handles;
        handles = handle;
    }
    pthread_mutex_unlock(&guard);
    return handle;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    GLOBAL(nvmlInitWithFlags);
    if (!code) code = state->init;
    if (!code) {
        pthread_mutex_lock(&guard);
        if (!users++) generation_at_init = state->generation;
        pthread_mutex_unlock(&guard);
    }
    LEAVE;
}

int nvmlShutdown(void) {
    GLOBAL(nvmlShutdown);
    if (!code) {
        if (__atomic_load_n(&hanging, __ATOMIC_SEQ_CST)) abort();
        pthread_mutex_lock(&guard);
        users--;
        pthread_mutex_unlock(&guard);
    }
    LEAVE;
}

const char *nvmlErrorString(int code) {
    return code == 28 ? "GPU not found" : "an error of the stand-in";
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    GLOBAL(nvmlSystemGetDriverVersion);
    if (!code) snprintf(version, length, "%s", state->driver);
    LEAVE;
}

int nvmlSystemGetCudaDriverVersion(int *version) {
    GLOBAL(nvmlSystemGetCudaDriverVersion);
    *version = state->cuda;
    LEAVE;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    return nvmlSystemGetCudaDriverVersion(version);
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    GLOBAL(nvmlDeviceGetCount_v2);
    *count = 0;
    for (int i = 0; i < state->unit_count; i++) *count += state->units[i].parent < 0;
    LEAVE;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle **handle) {
    GLOBAL(nvmlDeviceGetHandleByIndex_v2);
    if (!code) {
        code = INVALID_ARGUMENT;
        for (int i = 0; i < state->unit_count; i++)
            if (state->units[i].parent < 0 && index-- == 0) {
                *handle = handle_for(state->units[i].uuid);
                code = state->units[i].error;
                break;
            }
    }
    LEAVE;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Handle **handle) {
    GLOBAL(nvmlDeviceGetHandleByUUID);
    if (!code) {
        code = NOT_FOUND;
        for (int i = 0; i < state->unit_count; i++)
            if (!strcmp(state->units[i].uuid, uuid)) {
                *handle = handle_for(uuid);
                code = state->units[i].error;
            }
    }
    LEAVE;
}

static int give_text(int code, const char *text, char *to, unsigned length) {
    if (!code) snprintf(to, length, "%s", text);
    return code;
}

int nvmlDeviceGetUUID(Handle *handle, char *uuid, unsigned length) {
    OF_UNIT(nvmlDeviceGetUUID);
    code = give_text(code, unit ? unit->uuid : "", uuid, length);
    LEAVE;
}

int nvmlDeviceGetName(Handle *handle, char *name, unsigned length) {
    OF_UNIT(nvmlDeviceGetName);
    code = give_text(code, unit ? unit->name : "", name, length);
    LEAVE;
}

typedef struct {
    char bus_legacy[16];
    unsigned domain, bus, device, id, sub_id;
    char bus_id[32];
} Pci;

int nvmlDeviceGetPciInfo_v3(Handle *handle, Pci *pci) {
    OF_UNIT(nvmlDeviceGetPciInfo_v3);
    memset(pci, 0, sizeof *pci);
    if (!code && !unit->bus[0]) code = NOT_SUPPORTED;
    if (!code) {
        sscanf(unit->bus, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device);
        snprintf(pci->bus_id, sizeof pci->bus_id, "%08X:%02X:%02X.0", pci->domain, pci->bus, pci->device);
    }
    LEAVE;
}

typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned version; u64 total, reserved, free, used; } MemoryV2;

int nvmlDeviceGetMemoryInfo(Handle *handle, Memory *memory) {
    OF_UNIT(nvmlDeviceGetMemoryInfo);
    if (!code && unit->total < 0) code = NOT_SUPPORTED;
    if (!code) {
        memory->total = unit->total * MIB;
        memory->free = unit->free * MIB;
        memory->used = memory->total - memory->free;
    }
    LEAVE;
}

int nvmlDeviceGetMemoryInfo_v2(Handle *handle, MemoryV2 *memory) {
    OF_UNIT(nvmlDeviceGetMemoryInfo_v2);
    if (!code && (unit->total < 0 || unit->reserved < 0)) code = NOT_SUPPORTED;
    if (!code) {
        memory->total = unit->total * MIB;
        memory->free = unit->free * MIB;
        memory->reserved = unit->reserved * MIB;
        u64 spoken_for = memory->free + memory->reserved;
        memory->used = memory->total > spoken_for ? memory->total - spoken_for : 0;
    }
    LEAVE;
}

static int give_number(int code, long long number, unsigned *to) {
    if (!code && number < 0) code = NOT_SUPPORTED;
    if (!code) *to = (unsigned)number;
    return code;
}

int nvmlDeviceGetUtilizationRates(Handle *handle, unsigned rates[2]) {
    OF_UNIT(nvmlDeviceGetUtilizationRates);
    code = give_number(code, unit ? unit->busy : -1, &rates[0]);
    rates[1] = 0;
    LEAVE;
}

int nvmlDeviceGetPersistenceMode(Handle *handle, unsigned *mode) {
    OF_UNIT(nvmlDeviceGetPersistenceMode);
    code = give_number(code, unit ? unit->persistent : -1, mode);
    LEAVE;
}

int nvmlDeviceGetTemperature(Handle *handle, int sensor, unsigned *degrees) {
    (void)sensor;
    OF_UNIT(nvmlDeviceGetTemperature);
    code = give_number(code, unit ? unit->temperature : -1, degrees);
    LEAVE;
}

int nvmlDeviceGetTemperatureThreshold(Handle *handle, int which, unsigned *degrees) {
    OF_UNIT(nvmlDeviceGetTemperatureThreshold);
    code = give_number(code, unit && which == 1 ? unit->slowdown : -1, degrees);
    LEAVE;
}

int nvmlDeviceGetCurrentClocksEventReasons(Handle *handle, u64 *reasons) {
    OF_UNIT(nvmlDeviceGetCurrentClocksEventReasons);
    if (!code && unit->reasons < 0) code = NOT_SUPPORTED;
    if (!code) *reasons = (u64)unit->reasons;
    LEAVE;
}

typedef struct { unsigned pid; u64 time_us; unsigned sm, memory, encoder, decoder; } UseSample;

int nvmlDeviceGetProcessUtilization(Handle *handle, UseSample *samples, unsigned *count, u64 since_us) {
    OF_UNIT(nvmlDeviceGetProcessUtilization);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    u64 now_us = (u64)now.tv_sec * 1000000 + (u64)now.tv_nsec / 1000;
    if (!code && unit->use_count < 0) code = NOT_SUPPORTED;
    if (!code && (!unit->use_count || since_us >= now_us)) code = NOT_FOUND;
    if (!code && (!samples || *count < (unsigned)unit->use_count)) code = INSUFFICIENT_SIZE;
    if (!code)
        for (int i = 0; i < unit->use_count; i++)
            samples[i] = (UseSample){unit->uses[i].pid, now_us, unit->uses[i].percent, 0, 0, 0};
    *count = unit && unit->use_count > 0 ? (unsigned)unit->use_count : 0;
    LEAVE;
}

int nvmlDeviceGetPowerUsage(Handle *handle, unsigned *milliwatts) {
    OF_UNIT(nvmlDeviceGetPowerUsage);
    code = give_number(code, unit ? unit->power : -1, milliwatts);
    LEAVE;
}

int nvmlDeviceGetEnforcedPowerLimit(Handle *handle, unsigned *milliwatts) {
    OF_UNIT(nvmlDeviceGetEnforcedPowerLimit);
    code = give_number(code, unit ? unit->limit : -1, milliwatts);
    LEAVE;
}

int nvmlDeviceGetComputeMode(Handle *handle, unsigned *mode) {
    OF_UNIT(nvmlDeviceGetComputeMode);
    code = give_number(code, unit ? unit->compute_mode : -1, mode);
    LEAVE;
}

int nvmlDeviceGetTotalEccErrors(Handle *handle, unsigned kind, unsigned counter, u64 *count) {
    OF_UNIT(nvmlDeviceGetTotalEccErrors);
    if (!code && (kind > 1 || counter > 1)) code = INVALID_ARGUMENT;
    if (!code && unit->ecc[0] < 0) code = NOT_SUPPORTED;
    if (!code) *count = (u64)unit->ecc[2 * counter + kind];
    LEAVE;
}

int nvmlDeviceGetMigMode(Handle *handle, unsigned *current, unsigned *pending) {
    OF_UNIT(nvmlDeviceGetMigMode);
    code = give_number(code, unit ? unit->mig_mode : -1, current);
    *pending = *current;
    LEAVE;
}

int nvmlDeviceGetMaxMigDeviceCount(Handle *handle, unsigned *count) {
    OF_UNIT(nvmlDeviceGetMaxMigDeviceCount);
    *count = !code && unit->mig_mode > 0 ? 7 : 0;
    LEAVE;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Handle *handle, unsigned index, Handle **instance) {
    OF_UNIT(nvmlDeviceGetMigDeviceHandleByIndex);
    if (!code) {
        code = NOT_FOUND;
        for (int i = 0; i < state->unit_count; i++)
            if (state->units[i].parent == unit - state->units && index-- == 0) {
                *instance = handle_for(state->units[i].uuid);
                code = OK;
                break;
            }
    }
    LEAVE;
}

typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } ProcessInfo;

static int give_processes(int code, const Unit *unit, int graphics, unsigned *room, ProcessInfo *infos) {
    unsigned count = 0;
    if (code) return code;
    for (int i = 0; i < unit->process_count; i++) {
        const Process *one = &unit->processes[i];
        if (one->graphics != graphics) continue;
        if (infos && count < *room)
            infos[count] = (ProcessInfo){one->pid, one->mib < 0 ? ~0ULL : one->mib * MIB, ~0U, ~0U};
        count++;
    }
    code = count > (infos ? *room : 0) ? INSUFFICIENT_SIZE : OK;
    *room = count;
    return code;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Handle *handle, unsigned *count, ProcessInfo *infos) {
    OF_UNIT(nvmlDeviceGetComputeRunningProcesses_v3);
    code = give_processes(code, unit, 0, count, infos);
    LEAVE;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(Handle *handle, unsigned *count, ProcessInfo *infos) {
    OF_UNIT(nvmlDeviceGetGraphicsRunningProcesses_v3);
    code = give_processes(code, unit, 1, count, infos);
    LEAVE;
}

typedef struct { Handle *device; u64 type, data; unsigned gpu_instance, compute_instance; } Event;
typedef struct { int count; Handle *watched[MOST_UNITS]; } EventSet;

int nvmlEventSetCreate(EventSet **set) {
    GLOBAL(nvmlEventSetCreate);
    if (!code) *set = calloc(1, sizeof **set);
    LEAVE;
}

int nvmlEventSetFree(EventSet *set) {
    GLOBAL(nvmlEventSetFree);
    if (!code) free(set);
    LEAVE;
}

int nvmlDeviceRegisterEvents(Handle *handle, u64 types, EventSet *set) {
    (void)types;
    OF_UNIT(nvmlDeviceRegisterEvents);
    if (!code && set->count < MOST_UNITS) {
        handle->delivered = unit->xid_count; /* only what comes later is told */
        set->watched[set->count++] = handle;
    }
    LEAVE;
}

int nvmlEventSetWait_v2(EventSet *set, Event *event, unsigned patience_ms) {
    (void)patience_ms;
    GLOBAL(nvmlEventSetWait_v2);
    if (!code) {
        code = TIMEOUT;
        for (int i = 0; i < set->count && code; i++) {
            Handle *handle = set->watched[i];
            Unit *unit = unit_of(state, handle);
            if (unit && handle->delivered < unit->xid_count) {
                *event = (Event){handle, 8, (u64)unit->xids[handle->delivered++], ~0U, ~0U};
                code = OK;
            }
        }
    }
    LEAVE;
}
