#ifndef SHOAL_MODEL_PORTABLE_MATH_H
#define SHOAL_MODEL_PORTABLE_MATH_H

/* log, exp, pow, sin and cos in double with the same bits on every machine.
 *
 * The C library picks other code for these by CPU and version; rope tables and the softmax scale
 * would then differ between workers. These use + - * / only, in one fixed order (the build turns
 * contraction off), and are within 1 ulp of the exact value (tested against libm to 2 ulp).
 * Pure; any thread. The arguments are finite; a range given below is asserted.
 */

double portable_log(double x);           /* x > 0 */
double portable_exp(double x);           /* infinity above 709.78, 0 below -745.13 */
double portable_pow(double x, double y); /* x > 0 */
/* |x| <= 2^26 radians; the reduction keeps the result exact to the last bit or so there. */
void portable_sincos(double x, double *sine, double *cosine);

#endif
