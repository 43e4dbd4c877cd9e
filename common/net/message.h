#ifndef SHOAL_NET_MESSAGE_H
#define SHOAL_NET_MESSAGE_H

/* The control messages as our own structs. proto/shoal.proto is the schema; codec.c translates, so
 * that the generated types never leave this room. Strings and arrays of a decoded message lie in
 * the arena given to message_decode.
 */
#include "common/base/arena.h"
#include "common/base/error.h"
#include "common/base/operation.h"
#include "common/plan/placement.h"
#include "common/plan/step.h"

#include <stdint.h>

#define PROTOCOL_MAJOR          1 /* another major is refused by both sides, with both versions named */
#define PROTOCOL_MINOR          5 /* fields may be added; the lower minor of the two is spoken */
#define PROTOCOL_MINOR_ATTEMPTS 4 /* from here on: LINK_LOST, ATTEMPT */
#define PROTOCOL_MINOR_PROFILES 5 /* from here on: PROFILE_ASK, PROFILE */

enum message_kind {
    MESSAGE_REGISTER = 1, /* worker → coordinator: who I am */
    MESSAGE_WELCOME,      /* ←: your id */
    MESSAGE_ASSIGN,       /* ←: a placement and everyone's addresses: load your share */
    MESSAGE_PROGRESS,     /* →: loading */
    MESSAGE_LOADED,       /* →: share loaded, ledger; waiting for connect */
    MESSAGE_CONNECT,      /* ←: all are loaded: connect and measure your links */
    MESSAGE_READY,        /* →: links are up, with their measurements */
    MESSAGE_START,        /* ←: the epoch begins; steps follow */
    MESSAGE_STEP,         /* ← */
    MESSAGE_STEP_RESULT,  /* → */
    MESSAGE_HEARTBEAT,    /* both ways, with counters → */
    MESSAGE_DRAIN,        /* →: I want to leave; ←: finish and leave */
    MESSAGE_ERROR,        /* both ways: what failed; the sender says whether it goes on */
    MESSAGE_LINK_LOST,    /* →: a link of the serving epoch broke; ATTEMPT follows, or its end */
    MESSAGE_ATTEMPT,      /* ←: a further attempt begins: the steps in flight follow again */
    MESSAGE_PROFILE_ASK,  /* ←: where did the time go? Carries nothing */
    MESSAGE_PROFILE,      /* →: here */
};

struct register_message {
    uint32_t protocol_major, protocol_minor;
    const char *build; /* SHOAL_VERSION */
    const char *host;
    uint32_t pid;
    uint32_t core_count;
    uint32_t thread_count;
    uint32_t numa_node_count;
    uint64_t memory_bytes;    /* limit: min(--memory, cgroup, MemAvailable) */
    const char *cpu_level;    /* "avx512" */
    const char *cpu_features; /* words, for people */
    const char *cpu_name;
    double read_bytes_per_s; /* measured at start */
    uint64_t world_id;       /* MPI island; 0: none */
    uint32_t world_rank, world_size;
    const char *data_endpoint; /* tcp://address:port, reachable by peers */
    uint32_t kernels_version;
    uint32_t numa_node;       /* that it is bound to; UINT32_MAX: none */
    const char *launch_token; /* given by the coordinator to workers it started itself, else "" */
    const char *held_model;   /* hash of the model whose weights are in memory already; "": none */
    uint64_t held_bytes;
    uint32_t held_stage, held_member; /* the seat that they were loaded for */
    /* That it was assigned, by any coordinator: frames of it may still be under way. 0: none */
    uint64_t last_epoch;
    const char *fast_numerics; /* what --numerics fast is there: "fast-amx" or "int8" */
};
struct welcome_message {
    uint32_t worker;
    uint32_t protocol_major, protocol_minor; /* the minor to be spoken */
    int64_t heartbeat_ns;
};
struct peer_address {
    uint32_t worker;
    const char *data_endpoint;
    uint64_t world_id;
    uint32_t world_rank;
};
struct assign_message {
    struct placement *placement;
    uint32_t peer_count;
    struct peer_address *peers; /* of every worker in the placement */
    const char *model;          /* directory as the coordinator names it */
    const char *model_hash;     /* of config and catalog: a worker with another model refuses */
    const char *weights;        /* of a weights_choice: "dummy:SEED"; "": the model's own */
    const char *fetch_id;       /* of the model's content, as it is served and cached; "": not */
    uint16_t fetch_port;        /* of the coordinator, that serves the model's files; 0: none */
    /* Load what the share lacks beside what is served, which goes on, and answer LOADED, or ERROR
     * with this epoch's number; the epoch itself begins with an assignment of its own. */
    bool preload;
    bool measure_limits; /* before the share is loaded */
};
struct ledger_line {
    const char *what; /* "weights", "KV cache", … */
    uint64_t bytes;
};
struct progress_message {
    uint64_t epoch;
    uint64_t done_bytes, total_bytes;
};
struct loaded_message {
    uint64_t epoch;
    uint32_t line_count;
    struct ledger_line *lines;
    uint64_t limit_bytes;
    int64_t load_ns;
    uint64_t read_bytes; /* of files */
    uint64_t kept_bytes; /* of files that needed not be read: their tensors were held already */
    struct machine_limits limits; /* zeros: not measured */
};
struct link_report {
    uint32_t peer;
    const char *kind;   /* "mpi", "zmq" */
    int64_t latency_ns; /* half a round trip, median */
    double bytes_per_s;
};
struct ready_message {
    uint64_t epoch;
    uint32_t link_count;
    struct link_report *links;
};
struct link_usage {
    uint32_t peer;
    const char *kind;
    uint64_t frames_sent, frames_received, bytes_sent, bytes_received;
    uint64_t crc_errors, frames_dropped;
};
struct heartbeat_message {
    int64_t sent_ns;         /* sender's monotonic clock */
    uint64_t epoch;          /* 0: none */
    uint64_t steps;          /* finished in this epoch */
    int64_t busy_ns;         /* computing, since start */
    int64_t wait_ns;         /* in a step, waiting for frames, since start */
    uint64_t memory_bytes;   /* anonymous resident */
    uint64_t frames_dropped; /* of the epoch: of steps that were over or abandoned when they came */
    uint32_t link_count;
    struct link_usage *links;
};
struct error_message {
    enum error_code code;
    uint64_t epoch; /* 0: none */
    uint64_t step;  /* UINT64_MAX: none */
    bool fatal;     /* the sender leaves */
    const char *text;
};

struct link_lost_message {
    uint64_t epoch;
    uint32_t attempt; /* in which the link was opened */
    uint32_t peer;
    const char *text; /* how we know */
};
struct attempt_message {
    uint64_t epoch;
    uint32_t attempt;
    bool all_links;      /* are opened anew; else the links of these pairs of workers: */
    uint32_t pair_count; /* two entries each */
    const uint32_t *pairs;
};
struct profile_message {
    uint64_t epoch; /* whose stage was counted; 0: none */
    uint32_t record_count;
    struct operation_record *records;
};

struct message {
    enum message_kind kind;
    union {
        struct register_message reg;
        struct welcome_message welcome;
        struct assign_message assign;
        struct progress_message progress;
        struct loaded_message loaded;
        uint64_t connect_epoch;
        struct ready_message ready;
        uint64_t start_epoch;
        struct step step;
        struct step_result result;
        struct heartbeat_message heartbeat;
        struct error_message error; /* DRAIN carries nothing */
        struct link_lost_message link_lost;
        struct attempt_message attempt;
        struct profile_message profile;
    };
};

/* Big float rows of a step result travel behind the protobuf message as raw little-endian f32 in
 * further ZeroMQ parts, in the order logits, hidden, draft logits: never copied through protobuf.
 */

#endif
