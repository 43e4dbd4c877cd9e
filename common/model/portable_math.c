/* portable_math.c - elementary functions whose bits do not depend on the machine.
 *
 * Plain series after a range reduction, long enough that the rest is below a tenth of an ulp; they
 * run when tables are built, so clearness goes before speed. What would lose bits in one double
 * (the reduction by pi/2 and the product inside pow) is carried as an unevaluated sum of two,
 * `pair`, with the error-free transformations of Dekker and Knuth. Sums and products of doubles
 * are correctly rounded by IEEE 754, so equal code gives equal bits.
 */
#include "common/model/portable_math.h"

#include "common/base/check.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define SQRT_HALF  0.70710678118654752440
#define SINCOS_MAX 67108864.0 /* 2^26: times a 27-bit part of pi/2 stays exact */

/* ln 2 in parts: 32 bits and the rest, for exp and log; 40, 40 and the rest, for pow. */
static const double ln2_hi = 0x1.62e42fee00000p-1;
static const double ln2_lo = 0x1.a39ef35793c76p-33;
static const double ln2_parts[] = {0x1.62e42fefa2000p-1, 0x1.9ef35793c6000p-41,
                                   0x1.673007e5ed5e8p-81};
static const double ln2_inverse = 0x1.71547652b82fep+0;
/* pi/2 in four parts of 27 bits and the rest. */
static const double half_pi_parts[] = {0x1.921fb54000000p+0, 0x1.10b4610000000p-30,
                                       0x1.a626330000000p-58, 0x1.45c06e0000000p-86,
                                       0x1.cd129024e088ap-115};
static const double half_pi_inverse = 0x1.45f306dc9c883p-1;

/* hi + lo, with |lo| at most half an ulp of hi. */
struct pair {
    double hi;
    double lo;
};

static struct pair pair_sum(double a, double b)
{
    double sum = a + b;
    double b_part = sum - a;

    return (struct pair){sum, (a - (sum - b_part)) + (b - b_part)};
}

/* The upper 26 bits of a. */
static double split_high(double a)
{
    double scaled = 134217729.0 * a;

    return scaled - (scaled - a);
}

static struct pair pair_product(double a, double b)
{
    double product = a * b;
    double a_hi = split_high(a);
    double a_lo = a - a_hi;
    double b_hi = split_high(b);
    double b_lo = b - b_hi;

    return (struct pair){product,
                         ((a_hi * b_hi - product) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo};
}

static struct pair pair_add(struct pair a, struct pair b)
{
    struct pair sum = pair_sum(a.hi, b.hi);

    return pair_sum(sum.hi, sum.lo + (a.lo + b.lo));
}

static struct pair pair_multiply(struct pair a, struct pair b)
{
    struct pair product = pair_product(a.hi, b.hi);

    return pair_sum(product.hi, product.lo + (a.hi * b.lo + a.lo * b.hi));
}

static struct pair pair_divide(struct pair a, struct pair b)
{
    double quotient = a.hi / b.hi;
    struct pair product = pair_multiply((struct pair){quotient, 0}, b);
    double rest = ((a.hi - product.hi) - product.lo) + a.lo;

    return pair_sum(quotient, rest / b.hi);
}

/* x = mantissa * 2^exponent with the mantissa in [sqrt(1/2), sqrt(2)). */
static double mantissa_of(double x, int *exponent)
{
    uint64_t bits;
    int offset = 1022;

    if (x < DBL_MIN) { /* subnormal */
        x *= 0x1p54;
        offset += 54;
    }
    memcpy(&bits, &x, sizeof(bits));
    *exponent = (int)(bits >> 52) - offset;
    bits = (bits & UINT64_C(0x000fffffffffffff)) | (UINT64_C(1022) << 52);
    memcpy(&x, &bits, sizeof(x));
    if (x < SQRT_HALF) {
        x += x;
        *exponent -= 1;
    }
    return x;
}

static double power_of_two(int exponent)
{
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double value;

    DEBUG_ASSERT(exponent > -1023 && exponent < 1024);
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static double round_to_integer(double x)
{
    return (double)(int64_t)(x < 0 ? x - 0.5 : x + 0.5);
}

/* sum of z^i / (2 i + first) for i in [0, terms) */
static double odd_series(double z, int first, int terms)
{
    double sum = 0;

    for (int i = terms - 1; i >= 0; i--) {
        sum = sum * z + 1.0 / (2 * i + first);
    }
    return sum;
}

/* With s = f / (2 + f): ln(1 + f) = 2s + s R, R = 2 (s^2/3 + s^4/5 + ...), and 2s = f - s f. */
double portable_log(double x)
{
    int exponent;
    double f, s, z, rest;

    ASSERT(x > 0 && x <= DBL_MAX);
    f = mantissa_of(x, &exponent) - 1.0;
    s = f / (2.0 + f);
    z = s * s;
    rest = 2.0 * z * odd_series(z, 3, 11);
    return exponent * ln2_hi + (f - (s * (f - rest) - exponent * ln2_lo));
}

/* The same with about 100 bits: 2s (1 + z/3 + z^2/5 + z^3 (...)), the last bracket in double. */
static struct pair log_pair(double x)
{
    int exponent;
    double mantissa = mantissa_of(x, &exponent);
    struct pair s = pair_divide((struct pair){mantissa - 1.0, 0}, pair_sum(mantissa, 1.0));
    struct pair z = pair_multiply(s, s);
    struct pair one = {1.0, 0};
    struct pair sum = {odd_series(z.hi, 7, 10), 0};
    struct pair log;

    sum = pair_add(pair_divide(one, (struct pair){5.0, 0}), pair_multiply(z, sum));
    sum = pair_add(pair_divide(one, (struct pair){3.0, 0}), pair_multiply(z, sum));
    sum = pair_add(one, pair_multiply(z, sum));
    log = pair_multiply((struct pair){2.0 * s.hi, 2.0 * s.lo}, sum);
    for (int i = 2; i >= 0; i--) {
        log = pair_add((struct pair){exponent * ln2_parts[i], 0}, log);
    }
    return log;
}

/* e^(x.hi + x.lo) = 2^k e^r, |r| <= ln(2)/2, by 15 terms of the series. */
static double exp_pair(struct pair x)
{
    struct pair r;
    double k, sum = 0;
    int exponent, half;

    if (x.hi > 709.79) {
        return HUGE_VAL;
    }
    if (x.hi < -745.2) {
        return 0;
    }
    k = round_to_integer(x.hi * ln2_inverse);
    r = pair_sum(x.hi - k * ln2_hi, x.lo - k * ln2_lo);
    for (int i = 15; i >= 2; i--) {
        sum = (sum + 1.0) * (r.hi / i); /* r/2 (1 + r/3 (1 + r/4 ...)) */
    }
    sum = 1.0 + (r.hi + (r.hi * sum + r.lo * (1.0 + r.hi)));
    exponent = (int)k;
    half = exponent / 2; /* in two steps, so that neither factor leaves the range */
    return sum * power_of_two(half) * power_of_two(exponent - half);
}

double portable_exp(double x)
{
    ASSERT(x >= -DBL_MAX && x <= DBL_MAX);
    return exp_pair((struct pair){x, 0});
}

double portable_pow(double x, double y)
{
    struct pair log;

    ASSERT(x > 0 && x <= DBL_MAX && y >= -DBL_MAX && y <= DBL_MAX);
    log = log_pair(x);
    if (log.hi * y > 710.0) {
        return HUGE_VAL;
    }
    if (log.hi * y < -746.0) {
        return 0;
    }
    if (y < -0x1p900 || y > 0x1p900) { /* only x = 1 gets here */
        return 1.0;
    }
    return exp_pair(pair_multiply(log, (struct pair){y, 0}));
}

/* Both for |y| <= pi/4; y.lo enters by its first-order term. */
static double sine_of(struct pair y)
{
    double z = y.hi * y.hi;
    double sum = 0;

    for (int i = 17; i >= 3; i -= 2) {
        sum = (sum + 1.0) * (-z / ((i - 1) * i));
    }
    return y.hi + (y.hi * sum + y.lo * (1.0 - 0.5 * z));
}

static double cosine_of(struct pair y)
{
    double z = y.hi * y.hi;
    double half = 0.5 * z;
    double close = 1.0 - half;
    double sum = 0;

    for (int i = 18; i >= 4; i -= 2) {
        sum = (sum + 1.0) * (-z / ((i - 1) * i)); /* -z/12 + z^2/360 ... */
    }
    return close + (((1.0 - close) - half) - (half * sum + y.hi * y.lo));
}

void portable_sincos(double x, double *sine, double *cosine)
{
    struct pair y = {x, 0};
    double n, s, c;

    ASSERT(x >= -SINCOS_MAX && x <= SINCOS_MAX);
    n = round_to_integer(x * half_pi_inverse);
    for (int i = 0; n != 0 && i < 5; i++) {
        struct pair rest = pair_sum(y.hi, -(n * half_pi_parts[i]));

        y = pair_sum(rest.hi, rest.lo + y.lo);
    }
    s = sine_of(y);
    c = cosine_of(y);
    switch ((int64_t)n & 3) {
    case 0:
        *sine = s;
        *cosine = c;
        break;
    case 1:
        *sine = c;
        *cosine = -s;
        break;
    case 2:
        *sine = -s;
        *cosine = -c;
        break;
    default:
        *sine = -c;
        *cosine = s;
    }
}
