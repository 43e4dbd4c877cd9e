#ifndef SHOAL_ENGINE_STAGE_COST_H
#define SHOAL_ENGINE_STAGE_COST_H

/* What a stage needs for a step, learnt from the steps it has done:
 *
 *   time = fixed + a rows + b attended + c sampled,   no coefficient below 0
 *
 * `fixed` is the pass over the weights, a the arithmetic of a row, b reading the cache, c the head.
 * Least squares of the relative error, so that a 1-row step counts as much as a 512-row one
 * (non-negative least squares: Lawson and Hanson, Solving Least Squares Problems, chapter 23; four
 * unknowns, so all subsets are tried). Measurements are forgotten within classes of similar steps
 * (Ljung and Soderstrom, Theory and Practice of Recursive Identification, section 5.6, on
 * forgetting and its blow-up without excitation): an hour of equal decode steps does not erase what
 * the last prompt showed. A time far from the prediction counts with less weight. Deterministic. */
#include <stdint.h>

struct step_load {
    uint32_t rows;
    uint64_t attended; /* sum over the rows of the positions each attends */
    uint32_t sampled;
};

enum { STAGE_COST_TERMS = 4 }; /* fixed, rows, attended, sampled */

/* Weighted sums of the normal equations. */
struct cost_sums {
    double weight;
    double gram[STAGE_COST_TERMS][STAGE_COST_TERMS];
    double right[STAGE_COST_TERMS];
};

struct stage_cost {
    uint64_t measured;
    double ns[STAGE_COST_TERMS]; /* the coefficients */
    double surprise;             /* running mean of log(measured / predicted) */
    struct cost_sums *classes;
};

void stage_cost_init(struct stage_cost *cost);
void stage_cost_deinit(struct stage_cost *cost);
void stage_cost_measure(struct stage_cost *cost, const struct step_load *load, int64_t compute_ns);
/* 0 before the first measurement. */
double stage_cost_ns(const struct stage_cost *cost, const struct step_load *load);

#endif
