/* pinning.c - compute threads to cores and their memory to nodes, by hwloc.
 *
 * The order of cores: the first hardware thread of every core in the topology's order, which keeps
 * nodes together, then the second ones, and so on.
 */
#include "worker/team/pinning.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "worker/team/cores.h"

#include <hwloc.h>

struct pinning {
    hwloc_topology_t topology;
    uint32_t thread_count;
    hwloc_obj_t *places;  /* [thread_count] */
    hwloc_bitmap_t nodes; /* that they lie on */
};

void pinning_destroy(struct pinning *pinning)
{
    if (pinning == NULL) {
        return;
    }
    hwloc_bitmap_free(pinning->nodes);
    mem_free(pinning->places);
    hwloc_topology_destroy(pinning->topology);
    mem_free(pinning);
}

/* Which hardware thread of its core it is: 0, 1, … */
static unsigned sibling_of(hwloc_topology_t topology, hwloc_obj_t place)
{
    hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_CORE, place);
    unsigned before = 0;

    for (hwloc_obj_t at = place->prev_cousin; core != NULL && at != NULL; at = at->prev_cousin) {
        before += hwloc_bitmap_isincluded(at->cpuset, core->cpuset) ? 1 : 0;
    }
    return before;
}

static void places_find(struct pinning *pinning, hwloc_const_bitmap_t allowed)
{
    uint32_t found = 0;

    for (unsigned sibling = 0; found < pinning->thread_count; sibling++) {
        hwloc_obj_t place = NULL;
        bool is_last = true;

        while ((place = hwloc_get_next_obj_by_type(pinning->topology, HWLOC_OBJ_PU, place)) !=
               NULL) {
            unsigned at = sibling_of(pinning->topology, place);

            is_last = is_last && at <= sibling;
            if (at == sibling && found < pinning->thread_count &&
                hwloc_bitmap_isset(allowed, place->os_index)) {
                pinning->places[found++] = place;
                hwloc_bitmap_or(pinning->nodes, pinning->nodes, place->nodeset);
            }
        }
        if (is_last) {
            break;
        }
    }
    pinning->thread_count = found;
}

/* Takes the topology, which is loaded. */
static struct pinning *pinning_of(hwloc_topology_t topology, hwloc_const_bitmap_t allowed,
                                  uint32_t thread_count)
{
    struct pinning *pinning = mem_new(struct pinning);

    pinning->topology = topology;
    pinning->thread_count = thread_count;
    pinning->places = mem_new_array(hwloc_obj_t, thread_count);
    pinning->nodes = hwloc_bitmap_alloc();
    places_find(pinning, allowed);
    if (pinning->thread_count == thread_count) {
        return pinning;
    }
    pinning_destroy(pinning);
    return NULL;
}

struct pinning *pinning_create(uint32_t thread_count)
{
    hwloc_topology_t topology;
    struct pinning *pinning = NULL;
    hwloc_bitmap_t allowed;

    if (thread_count != cores_available() || hwloc_topology_init(&topology) != 0) {
        return NULL;
    }
    if (hwloc_topology_load(topology) != 0) {
        hwloc_topology_destroy(topology);
        return NULL;
    }
    allowed = hwloc_bitmap_alloc();
    if (hwloc_get_cpubind(topology, allowed, HWLOC_CPUBIND_THREAD) == 0 &&
        hwloc_bitmap_weight(allowed) == (int)thread_count) { /* else a quota is the limit */
        pinning = pinning_of(topology, allowed, thread_count);
    } else {
        hwloc_topology_destroy(topology);
    }
    hwloc_bitmap_free(allowed);
    return pinning;
}

struct pinning *pinning_create_synthetic(const char *description, uint32_t thread_count)
{
    hwloc_topology_t topology;

    if (hwloc_topology_init(&topology) != 0) {
        return NULL;
    }
    if (hwloc_topology_set_synthetic(topology, description) != 0 ||
        hwloc_topology_load(topology) != 0) {
        hwloc_topology_destroy(topology);
        return NULL;
    }
    return pinning_of(topology, hwloc_topology_get_topology_cpuset(topology), thread_count);
}

void pinning_apply(const struct pinning *pinning, uint32_t thread)
{
    if (pinning == NULL) {
        return;
    }
    ASSERT(thread < pinning->thread_count);
    (void)hwloc_set_cpubind(pinning->topology, pinning->places[thread]->cpuset,
                            HWLOC_CPUBIND_THREAD);
}

void pinning_spread(const struct pinning *pinning, const void *memory, uint64_t bytes)
{
    if (pinning != NULL && pinning_is_interleaved(pinning)) {
        (void)hwloc_set_area_membind(pinning->topology, memory, bytes, pinning->nodes,
                                     HWLOC_MEMBIND_INTERLEAVE, HWLOC_MEMBIND_BYNODESET);
    }
}

uint32_t pinning_core(const struct pinning *pinning, uint32_t thread)
{
    ASSERT(thread < pinning->thread_count);
    return pinning->places[thread]->os_index;
}

bool pinning_is_interleaved(const struct pinning *pinning)
{
    return hwloc_bitmap_weight(pinning->nodes) > 1;
}
