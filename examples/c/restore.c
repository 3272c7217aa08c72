/* Restore one slice without Python.
 *
 * restore BUNDLE TARGET ROWS COLUMNS REFERENCE OUTPUT
 *
 * TARGET holds ROWS x COLUMNS float32 magnitudes, REFERENCE and OUTPUT scale * ROWS x scale * COLUMNS. Give - as
 * REFERENCE for a model without one. The result is that of `Runtime(BUNDLE, backend="native")`, to the bit, for models
 * that were trained with references missing (manifest.json: without_reference), as the bundled ones were. Compile: cc
 * restore.c -I INCLUDE -o restore LIBRARY, where `python -c "from minet_sdk.backends.native import library_path;
 * print(library_path())"` names the library and INCLUDE lies beside it. Research use only. Not a medical device.
 */
#include <minet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double epsilon = 1e-11;    /* of the bundle's normalisation, see its manifest.json */
static const double least_trust = 0.15; /* of a reference that is used */

static void fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(minet_status status, const char *what) {
  if (status != MINET_OK) fail(what, minet_last_error());
}

static float *read_image(const char *path, size_t pixels) {
  float *image = malloc(pixels * sizeof *image);
  FILE *file = fopen(path, "rb");
  if (!image || !file) fail(path, "cannot be read");
  if (fread(image, sizeof *image, pixels, file) != pixels) fail(path, "is too short");
  fclose(file);
  return image;
}

/* Features of a reference that is brought to mean 0 and deviation 1. */
static minet_features *prepare(minet_engine *engine, float *reference, uint32_t rows, uint32_t columns) {
  minet_features *features = NULL;
  minet_level unused;
  check(minet_normalise(engine, reference, (size_t)rows * columns, epsilon, reference, &unused), "reference");
  check(minet_prepare(engine, reference, rows, columns, NULL, 0, &features), "prepare");
  return features;
}

int main(int count, char **arguments) {
  if (count != 7) fail(arguments[0], "expected BUNDLE TARGET ROWS COLUMNS REFERENCE OUTPUT");
  const uint32_t rows = (uint32_t)strtoul(arguments[3], NULL, 10);
  const uint32_t columns = (uint32_t)strtoul(arguments[4], NULL, 10);

  minet_plan *plan = NULL;
  check(minet_plan_open(arguments[1], &plan), arguments[1]);
  minet_information model = {.size = sizeof model};
  check(minet_plan_query(plan, &model), "query");
  minet_engine *engine = NULL;
  check(minet_engine_create(plan, NULL, &engine), "engine");

  const size_t pixels = (size_t)rows * columns, fine = pixels * model.scale * model.scale;

  /* As soon as the reference is there, before the target is even acquired. */
  minet_features *features = NULL;
  minet_seen *seen = NULL;
  if (strcmp(arguments[5], "-") != 0) {
    float *reference = read_image(arguments[5], fine);
    check(minet_see(engine, reference, model.scale * rows, model.scale * columns, &seen), "see");
    features = prepare(engine, reference, model.scale * rows, model.scale * columns);
    free(reference);
  }

  float *target = read_image(arguments[2], pixels);
  double trust = 1;
  if (seen) check(minet_trust(engine, target, rows, columns, seen, &trust), "trust");
  if (trust < least_trust) {
    printf("the reference does not show what the target shows (trust %.2f): restored without it\n", trust);
    float *none = calloc(fine, sizeof *none);
    if (!none) fail("reference", "no memory");
    minet_features_free(features);
    features = prepare(engine, none, model.scale * rows, model.scale * columns);
    free(none);
  }

  minet_level level;
  float *normal = malloc(pixels * sizeof *normal), *restored = malloc(fine * sizeof *restored);
  if (!normal || !restored) fail("restored", "no memory");
  check(minet_normalise(engine, target, pixels, epsilon, normal, &level), "target");
  check(minet_restore(engine, normal, rows, columns, features, restored, NULL, 0), "restore");
  check(minet_undo(engine, restored, fine, &level, restored), "undo");
  check(minet_put_back(engine, restored, target, rows, columns, restored), "consistency");

  FILE *file = fopen(arguments[6], "wb");
  if (!file || fwrite(restored, sizeof *restored, fine, file) != fine || fclose(file))
    fail(arguments[6], "cannot be written");
  printf("minet %s, %u threads: %u x %u restored to %u x %u\n", minet_version(), minet_engine_threads(engine), rows,
         columns, model.scale * rows, model.scale * columns);

  minet_features_free(features);
  minet_seen_free(seen);
  minet_engine_destroy(engine);
  minet_plan_close(plan);
  free(target);
  free(normal);
  free(restored);
  return 0;
}
