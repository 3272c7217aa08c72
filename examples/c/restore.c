/* Restore one slice without Python.
 *
 * restore BUNDLE TARGET ROWS COLUMNS REFERENCE OUTPUT
 *
 * TARGET holds ROWS x COLUMNS float32 magnitudes, REFERENCE and OUTPUT scale * ROWS x scale * COLUMNS. Give - as
 * REFERENCE for a model without one. Compile: cc restore.c -I INCLUDE -o restore LIBRARY -lm, where `python -c
 * "from minet_sdk.backends.native import library_path; print(library_path())"` names the library and INCLUDE lies
 * beside it. Research use only. Not a medical device.
 */
#include <math.h>
#include <minet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double epsilon = 1e-11; /* of the bundle's normalisation, see its manifest.json */

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

typedef struct {
  double mean, deviation;
} Level;

/* Bring an image to mean 0 and deviation 1, and tell what they were. */
static Level normalise(float *image, size_t pixels) {
  double sum = 0, square = 0;
  for (size_t i = 0; i < pixels; ++i) sum += image[i];
  const double mean = sum / (double)pixels;
  for (size_t i = 0; i < pixels; ++i) square += (image[i] - mean) * (image[i] - mean);
  const double deviation = sqrt(square / (double)pixels) + epsilon;
  for (size_t i = 0; i < pixels; ++i) image[i] = (float)((image[i] - mean) / deviation);
  return (Level){mean, deviation};
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
  if (strcmp(arguments[5], "-") != 0) {
    float *reference = read_image(arguments[5], fine);
    normalise(reference, fine);
    check(minet_prepare(engine, reference, model.scale * rows, model.scale * columns, NULL, 0, &features), "prepare");
    free(reference);
  }

  float *target = read_image(arguments[2], pixels);
  const Level level = normalise(target, pixels);
  float *restored = malloc(fine * sizeof *restored);
  if (!restored) fail("restored", "no memory");
  check(minet_restore(engine, target, rows, columns, features, restored, NULL, 0), "restore");
  for (size_t i = 0; i < fine; ++i) restored[i] = (float)(restored[i] * level.deviation + level.mean);

  FILE *file = fopen(arguments[6], "wb");
  if (!file || fwrite(restored, sizeof *restored, fine, file) != fine || fclose(file))
    fail(arguments[6], "cannot be written");
  printf("minet %s, %u threads: %u x %u restored to %u x %u\n", minet_version(), minet_engine_threads(engine), rows,
         columns, model.scale * rows, model.scale * columns);

  minet_features_free(features);
  minet_engine_destroy(engine);
  minet_plan_close(plan);
  free(target);
  free(restored);
  return 0;
}
