// A hand-written shared library with BridgeStan's interface, for the model
//     data { int N; vector[N] y; }
//     parameters { real mu; real<lower=0> sigma; }
//     model { mu ~ normal(0, 2); sigma ~ exponential(1); y ~ normal(mu, sigma); }
//     generated quantities { matrix[2, 2] m = [[mu, sigma], [mu + sigma, mu - sigma]]; vector[N] log_lik; }
// It rejects mu > 50, as a Stan model does by reject().
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

struct Model {
  std::vector<double> y;
  std::string names;
};

static const double LOG_SQRT_2PI = 0.91893853320467274178;

extern "C" {
int bs_major_version = 2, bs_minor_version = 9, bs_patch_version = 0;

static char *copy(const char *text) { return strdup(text); }

void *bs_model_construct(const char *data, unsigned seed, char **error) {
  const char *at = strstr(data, "\"y\"");
  if (!at || !(at = strchr(at, '['))) {
    *error = copy("variable y does not exist");
    return nullptr;
  }
  Model *model = new Model;
  for (char *end; *at && *at != ']'; at = end) {
    model->y.push_back(strtod(at + 1, &end));
    while (*end == ' ') ++end;
  }
  model->names = "mu,sigma,m.1.1,m.2.1,m.1.2,m.2.2";
  for (size_t i = 1; i <= model->y.size(); ++i) model->names += ",log_lik." + std::to_string(i);
  return model;
}
void bs_model_destruct(void *m) { delete static_cast<Model *>(m); }
void bs_free_error_msg(char *text) { free(text); }
int bs_set_print_callback(void *, char **) { return 0; }
const char *bs_name(const void *) { return "normal_model"; }
const char *bs_model_info(const void *) { return "STAN_THREADS=true"; }
const char *bs_param_names(const void *m, bool, bool gq) {
  return gq ? static_cast<const Model *>(m)->names.c_str() : "mu,sigma";
}
const char *bs_param_unc_names(const void *) { return "mu,sigma"; }
int bs_param_num(const void *m, bool, bool gq) { return gq ? 6 + static_cast<const Model *>(m)->y.size() : 2; }
int bs_param_unc_num(const void *) { return 2; }

int bs_param_constrain(const void *m, bool, bool gq, const double *z, double *out, void *, char **) {
  double mu = z[0], sigma = exp(z[1]);
  out[0] = mu, out[1] = sigma;
  if (!gq) return 0;
  out[2] = mu, out[3] = mu + sigma, out[4] = sigma, out[5] = mu - sigma;  // by columns
  const std::vector<double> &y = static_cast<const Model *>(m)->y;
  for (size_t i = 0; i < y.size(); ++i)
    out[6 + i] = -0.5 * pow((y[i] - mu) / sigma, 2) - z[1] - LOG_SQRT_2PI;
  return 0;
}
int bs_param_unconstrain(const void *, const double *x, double *out, char **) {
  out[0] = x[0], out[1] = log(x[1]);
  return 0;
}
int bs_param_unconstrain_json(const void *, const char *json, double *out, char **error) {
  const char *mu = strstr(json, "\"mu\""), *sigma = strstr(json, "\"sigma\"");
  if (!mu || !sigma) {
    *error = copy("a parameter is missing");
    return 1;
  }
  out[0] = atof(strchr(mu, ':') + 1), out[1] = log(atof(strchr(sigma, ':') + 1));
  return 0;
}
int bs_param_initialize(const void *, const char *, void *, double, int, bool, double *, char **) { return 1; }

int bs_log_density_gradient(const void *m, bool, bool jacobian, const double *z, double *value, double *grad,
                            char **error) {
  if (z[0] > 50) {
    *error = copy("rejected: mu is too large");
    return 1;
  }
  double mu = z[0], sigma = exp(z[1]), u = 0, s = 0;
  const std::vector<double> &y = static_cast<const Model *>(m)->y;
  double lp = -mu * mu / 8 - log(2.0) - LOG_SQRT_2PI - sigma + (jacobian ? z[1] : 0);
  for (double v : y) {
    double r = (v - mu) / sigma;
    lp += -0.5 * r * r - z[1] - LOG_SQRT_2PI;
    u += r / sigma, s += r * r - 1;
  }
  *value = lp, grad[0] = u - mu / 4, grad[1] = s - sigma + (jacobian ? 1 : 0);
  return 0;
}
int bs_log_density(const void *m, bool propto, bool jacobian, const double *z, double *value, char **error) {
  double grad[2];
  return bs_log_density_gradient(m, propto, jacobian, z, value, grad, error);
}
int bs_log_density_hessian(const void *, bool, bool, const double *, double *, double *, double *, char **) { return 1; }
int bs_log_density_hessian_vector_product(const void *, bool, bool, const double *, const double *, double *, double *,
                                          char **) {
  return 1;
}
void *bs_rng_construct(unsigned seed, char **) { return new unsigned(seed); }
int bs_rng_destruct(void *rng) {
  delete static_cast<unsigned *>(rng);
  return 0;
}
}
