/* stage_cost.c - fitting what a stage needs for a step.
 *
 * Every class of similar steps (rows, positions attended by a row, mostly sampled or not) keeps its
 * own sums of the normal equations, so that forgetting takes place among equals. A measurement
 * fades its own class by OWN_FADE; the others fade slowly, down to the weight of one measurement,
 * and stay there: they are all that is known about such steps.
 *
 * A machine that slows down is noticed by predictions that stay wrong in one direction; what all
 * classes remember is then moved, and not only the class that showed it.
 *
 * An equation is divided by the larger of measured and predicted time, which makes its error
 * relative and takes the weight from outliers: a step that was paged out for ten times its time
 * pulls like a tenth of a step. RIDGE decides what the measurements leave open (decode steps alone
 * cannot tell a row from its sample): such terms share evenly.
 */
#include "coordinator/engine/stage_cost.h"

#include "common/base/mem.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define OWN_FADE        (1.0 / 32)
#define OTHERS_FADE     (1.0 / 128)
#define FOLLOW_WEIGHT   (1.0 / 16)
#define SURPRISE_WEIGHT (1.0 / 16)
#define SURPRISE_MIN    0.1
#define SURPRISE_MAX    0.5
#define RIDGE           1e-3

#define ROW_CLASSES      13 /* 1, 2-3, 4-7, ... */
#define ATTENDED_CLASSES 5  /* below 64 a row, below 512, ... */
#define CLASS_COUNT      (ROW_CLASSES * ATTENDED_CLASSES * 2)

/* A system of equations as stage_cost_solve scales it. */
struct scaled {
    double gram[STAGE_COST_TERMS][STAGE_COST_TERMS];
    double right[STAGE_COST_TERMS];
};

void stage_cost_init(struct stage_cost *cost)
{
    *cost = (struct stage_cost){.classes = mem_new_array(struct cost_sums, CLASS_COUNT)};
}

void stage_cost_deinit(struct stage_cost *cost)
{
    mem_free(cost->classes);
}

static void load_terms(const struct step_load *load, double terms[STAGE_COST_TERMS])
{
    terms[0] = 1;
    terms[1] = load->rows;
    terms[2] = (double)load->attended;
    terms[3] = load->sampled;
}

static uint32_t load_class(const struct step_load *load)
{
    uint32_t row_class = 0;
    uint32_t attended_class = 0;
    uint64_t attended = load->attended / (load->rows > 0 ? load->rows : 1);

    while (row_class + 1 < ROW_CLASSES && load->rows >> (row_class + 1) > 0) {
        row_class++;
    }
    while (attended_class + 1 < ATTENDED_CLASSES && attended >> (3 * attended_class + 6) > 0) {
        attended_class++;
    }
    return (row_class * ATTENDED_CLASSES + attended_class) * 2 + (load->sampled >= load->rows / 2);
}

static void sums_fade(struct cost_sums *sums, double factor)
{
    sums->weight *= factor;
    for (int i = 0; i < STAGE_COST_TERMS; i++) {
        sums->right[i] *= factor;
        for (int j = 0; j < STAGE_COST_TERMS; j++) {
            sums->gram[i][j] *= factor;
        }
    }
}

static void sums_add(struct cost_sums *sums, const double *terms, double ns, double weight)
{
    sums->weight += 1;
    for (int i = 0; i < STAGE_COST_TERMS; i++) {
        sums->right[i] += weight * terms[i] * ns;
        for (int j = 0; j < STAGE_COST_TERMS; j++) {
            sums->gram[i][j] += weight * terms[i] * terms[j];
        }
    }
}

/* A machine that became slower or faster did so for all steps: what is remembered moves along, once
 * the surprise has lasted. */
static void classes_follow(struct stage_cost *cost, double ns, double expected_ns)
{
    double surprise = fmax(fmin(log(ns / expected_ns), SURPRISE_MAX), -SURPRISE_MAX);

    cost->surprise += SURPRISE_WEIGHT * (surprise - cost->surprise);
    if (fabs(cost->surprise) < SURPRISE_MIN) {
        return;
    }
    for (uint32_t i = 0; i < CLASS_COUNT; i++) {
        for (int j = 0; j < STAGE_COST_TERMS; j++) {
            cost->classes[i].right[j] *= 1 + FOLLOW_WEIGHT * cost->surprise;
        }
    }
}

static void classes_fade(struct stage_cost *cost, uint32_t own)
{
    for (uint32_t i = 0; i < CLASS_COUNT; i++) {
        struct cost_sums *sums = &cost->classes[i];

        if (i == own) {
            sums_fade(sums, 1 - OWN_FADE);
        } else if (sums->weight > 1) {
            sums_fade(sums, fmax(1 - OTHERS_FADE, 1 / sums->weight));
        }
    }
}

/* Solves for the terms in `subset` by Cholesky's method; the others are 0. False: one is negative.
 */
static bool subset_solve(const struct scaled *scaled, uint32_t subset, double *out)
{
    double lower[STAGE_COST_TERMS][STAGE_COST_TERMS] = {{0}};
    int terms[STAGE_COST_TERMS];
    int count = 0;

    for (int i = 0; i < STAGE_COST_TERMS; i++) {
        out[i] = 0;
        if ((subset >> i & 1) != 0) {
            terms[count++] = i;
        }
    }
    for (int i = 0; i < count; i++) {
        double value = scaled->right[terms[i]];

        for (int j = 0; j <= i; j++) {
            double sum = scaled->gram[terms[i]][terms[j]];

            for (int k = 0; k < j; k++) {
                sum -= lower[i][k] * lower[j][k];
            }
            lower[i][j] = i == j ? sqrt(fmax(sum, RIDGE)) : sum / lower[j][j];
        }
        for (int k = 0; k < i; k++) {
            value -= lower[i][k] * out[terms[k]];
        }
        out[terms[i]] = value / lower[i][i];
    }
    for (int i = count - 1; i >= 0; i--) {
        for (int k = i + 1; k < count; k++) {
            out[terms[i]] -= lower[k][i] * out[terms[k]];
        }
        out[terms[i]] /= lower[i][i];
        if (out[terms[i]] < 0) {
            return false;
        }
    }
    return true;
}

/* Half the sum of squares, but for a constant. */
static double subset_error(const struct scaled *scaled, const double *solution)
{
    double error = 0;

    for (int i = 0; i < STAGE_COST_TERMS; i++) {
        error -= scaled->right[i] * solution[i];
        for (int j = 0; j < STAGE_COST_TERMS; j++) {
            error += 0.5 * solution[i] * scaled->gram[i][j] * solution[j];
        }
    }
    return error;
}

static void coefficients_solve(struct stage_cost *cost, const struct cost_sums *all)
{
    double scale[STAGE_COST_TERMS];
    double solution[STAGE_COST_TERMS];
    double error_min = 0;
    struct scaled scaled;

    for (int i = 0; i < STAGE_COST_TERMS; i++) {
        scale[i] = all->gram[i][i] > 0 ? 1 / sqrt(all->gram[i][i]) : 0;
    }
    for (int i = 0; i < STAGE_COST_TERMS; i++) {
        scaled.right[i] = all->right[i] * scale[i];
        for (int j = 0; j < STAGE_COST_TERMS; j++) {
            scaled.gram[i][j] = all->gram[i][j] * scale[i] * scale[j];
        }
        scaled.gram[i][i] += RIDGE;
    }
    for (uint32_t subset = 1; subset < 1u << STAGE_COST_TERMS; subset++) {
        double error;

        if (!subset_solve(&scaled, subset, solution)) {
            continue;
        }
        error = subset_error(&scaled, solution);
        if (error < error_min) {
            error_min = error;
            for (int i = 0; i < STAGE_COST_TERMS; i++) {
                cost->ns[i] = solution[i] * scale[i];
            }
        }
    }
}

void stage_cost_measure(struct stage_cost *cost, const struct step_load *load, int64_t compute_ns)
{
    double ns = fmax((double)compute_ns, 1);
    double expected = stage_cost_ns(cost, load);
    double terms[STAGE_COST_TERMS];
    uint32_t own = load_class(load);
    struct cost_sums all = {0};

    load_terms(load, terms);
    classes_fade(cost, own);
    if (expected > 0) {
        classes_follow(cost, ns, expected);
    }
    sums_add(&cost->classes[own], terms, ns, 1 / (fmax(ns, expected) * fmax(ns, expected)));
    for (uint32_t i = 0; i < CLASS_COUNT; i++) {
        const struct cost_sums *sums = &cost->classes[i];

        if (sums->weight == 0) {
            continue;
        }
        for (int j = 0; j < STAGE_COST_TERMS; j++) {
            all.right[j] += sums->right[j];
            for (int k = 0; k < STAGE_COST_TERMS; k++) {
                all.gram[j][k] += sums->gram[j][k];
            }
        }
    }
    coefficients_solve(cost, &all);
    cost->measured++;
}

double stage_cost_ns(const struct stage_cost *cost, const struct step_load *load)
{
    double terms[STAGE_COST_TERMS];
    double ns = 0;

    load_terms(load, terms);
    for (int i = 0; i < STAGE_COST_TERMS; i++) {
        ns += cost->ns[i] * terms[i];
    }
    return ns;
}
