/* The native engine of MINet as a C library: open a bundle, prepare a reference, restore a target.
 *
 * Images are contiguous float32, row by row, (height, width, channels) with one channel in every bundle; the network's
 * are normalised, see minet_normalise. Every function that can fail returns a status; minet_last_error() then says in
 * one line what was wrong. Nothing throws or aborts, whatever is in the files or the arguments' values.
 *
 * One engine may be used from any number of threads at the same time; they count among its own. The result does not
 * depend on the number of threads, on the instruction set or on what else runs. Research use only. Not a medical
 * device.
 */
#ifndef MINET_H
#define MINET_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define MINET_API __attribute__((visibility("default")))
#else
#define MINET_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever a caller compiled against an older header would not work any more. */
#define MINET_ABI 1

typedef enum minet_status {
  MINET_OK = 0,
  MINET_INVALID_ARGUMENT = 1, /* a null pointer, a size that does not fit, features of another model */
  MINET_FILE_ERROR = 2,       /* a file is missing or cannot be read */
  MINET_BAD_PLAN = 3,         /* the plan or the weights are damaged or of another version */
  MINET_UNSUPPORTED_CPU = 4,  /* the processor lacks the instruction set */
  MINET_OUT_OF_MEMORY = 5,    /* the system gave no memory or no thread */
  MINET_OVER_LIMIT = 6,       /* the call would need more than the engine's memory limit */
  MINET_INTERNAL = 7          /* a bug */
} minet_status;

typedef enum minet_isa { MINET_ISA_BEST = 0, MINET_ISA_AVX2 = 1, MINET_ISA_AVX512 = 2 } minet_isa;

typedef struct minet_plan minet_plan;         /* the program of a bundle and its weights, ready for use */
typedef struct minet_engine minet_engine;     /* threads and memory to run a plan with */
typedef struct minet_features minet_features; /* what depends on a reference alone */
typedef struct minet_seen minet_seen;         /* a reference as the target's resolution shows it */

typedef struct minet_options {
  uint32_t size;         /* sizeof(minet_options) */
  uint32_t threads;      /* threads a call uses, its caller's included; 0 for one per core */
  uint32_t isa;          /* a minet_isa */
  uint32_t reserved;     /* 0 */
  uint64_t memory_limit; /* bytes of weights, features and workspace that one call may take in all; 0 for no limit */
} minet_options;

typedef struct minet_information {
  uint32_t size; /* sizeof(minet_information), set by the caller */
  uint32_t format;
  uint32_t scale;
  uint32_t needs_reference;
  uint32_t target_channels;
  uint32_t reference_channels; /* 0 without a reference */
  uint32_t restored_channels;
  uint32_t operations;
  uint64_t weight_bytes; /* memory that the plan holds */
} minet_information;

typedef struct minet_memory {
  uint32_t size; /* sizeof(minet_memory), set by the caller */
  uint32_t reserved;
  uint64_t weights;  /* bytes that the plan holds, shared by all its engines */
  uint64_t features; /* bytes of one prepared reference */
  uint64_t prepare;  /* bytes of workspace of minet_prepare */
  uint64_t restore;  /* bytes of workspace of minet_restore */
  uint64_t run;      /* bytes of workspace of minet_run, its features included */
} minet_memory;

typedef struct minet_level {
  double mean;
  double deviation; /* the standard deviation and a little more */
} minet_level;

/* Version of the library, such as "1.0". Static. */
MINET_API const char *minet_version(void);

/* MINET_ABI of the library. */
MINET_API uint32_t minet_abi(void);

/* What was wrong in this thread's last call that failed; empty if none did. Valid until the thread's next call. */
MINET_API const char *minet_last_error(void);

/* Whether this processor and its operating system run an instruction set: 1 or 0. MINET_ISA_BEST asks for any. */
MINET_API int minet_supports(minet_isa isa);

/* Open the plan of a bundle folder (native.plan and weights.bin). A plan may be closed before its engines. */
MINET_API minet_status minet_plan_open(const char *folder, minet_plan **plan);

/* Open a plan from memory, which is not needed any more afterwards. */
MINET_API minet_status minet_plan_from_memory(const void *program, size_t program_bytes, const void *weights,
                                              size_t weights_bytes, minet_plan **plan);

MINET_API void minet_plan_close(minet_plan *plan);

MINET_API minet_status minet_plan_query(const minet_plan *plan, minet_information *information);

/* Make an engine; any number of them share one plan's weights. options may be null for the defaults. */
MINET_API minet_status minet_engine_create(const minet_plan *plan, const minet_options *options, minet_engine **engine);

/* No call may be running. Features that the engine made stay valid. */
MINET_API void minet_engine_destroy(minet_engine *engine);

MINET_API uint32_t minet_engine_threads(const minet_engine *engine);

/* The instruction set in use; never MINET_ISA_BEST. */
MINET_API minet_isa minet_engine_isa(const minet_engine *engine);

/* Memory that a low-resolution target of this size takes. */
MINET_API minet_status minet_engine_memory(const minet_engine *engine, uint32_t height, uint32_t width,
                                           minet_memory *memory);

/* Compute what depends on the reference alone.
 *
 * reference: (height, width), multiples of the scale. Refused where restoring would go over the memory limit.
 * workspace: as many bytes as minet_engine_memory says under `prepare`, aligned to 64; null for memory of the engine.
 * features: to be freed by minet_features_free; until then any thread and any engine of the same plan may read it.
 */
MINET_API minet_status minet_prepare(minet_engine *engine, const float *reference, uint32_t height, uint32_t width,
                                     void *workspace, size_t workspace_bytes, minet_features **features);

/* Restore a target (height, width) into (scale * height, scale * width).
 *
 * features: of a reference (scale * height, scale * width); null exactly for models without a reference.
 * workspace: as many bytes as minet_engine_memory says under `restore`, aligned to 64; null for memory of the engine.
 */
MINET_API minet_status minet_restore(minet_engine *engine, const float *target, uint32_t height, uint32_t width,
                                     const minet_features *features, float *restored, void *workspace,
                                     size_t workspace_bytes);

/* minet_prepare and minet_restore in one call, with the same result to the bit.
 *
 * reference: (scale * height, scale * width); null exactly for models without a reference.
 * workspace: as many bytes as minet_engine_memory says under `run`, aligned to 64; null for memory of the engine.
 */
MINET_API minet_status minet_run(minet_engine *engine, const float *target, uint32_t height, uint32_t width,
                                 const float *reference, float *restored, void *workspace, size_t workspace_bytes);

/* Null is allowed. */
MINET_API void minet_features_free(minet_features *features);

/* What a slice needs beside the network. Memory that these work in is the engine's and not under its limit: a few
 * times the image. */

/* Bring an image to mean 0 and standard deviation 1.
 *
 * epsilon: of the bundle's manifest.json; added to the deviation, times the largest difference from the mean where that
 *     is below 1.
 * normal: as many pixels as the image; may be the image itself.
 * level: with which minet_undo undoes this, for the restored image too.
 */
MINET_API minet_status minet_normalise(const minet_engine *engine, const float *image, size_t pixels, double epsilon,
                                       float *normal, minet_level *level);

/* image = normal * deviation + mean; image may be normal itself. */
MINET_API minet_status minet_undo(const minet_engine *engine, const float *normal, size_t pixels,
                                  const minet_level *level, float *image);

/* What a reference will be judged by; before it is normalised or after, that makes no difference.
 *
 * reference: (height, width), multiples of the scale, at least ten times it.
 * seen: to be freed by minet_seen_free; any thread and any engine may read it until then.
 */
MINET_API minet_status minet_see(minet_engine *engine, const float *reference, uint32_t height, uint32_t width,
                                 minet_seen **seen);

/* Bytes that it holds. */
MINET_API size_t minet_seen_bytes(const minet_seen *seen);

/* How well a reference fits a target (height, width): 1 if it explains it wholly, about 0 or less if it explains it no
 * better than the same reference moved. Below 0.15 restore as if there were no reference: with one that is all zeros,
 * where the bundle's model was trained with references missing. */
MINET_API minet_status minet_trust(minet_engine *engine, const float *target, uint32_t height, uint32_t width,
                                   const minet_seen *seen, double *trust);

/* Null is allowed. */
MINET_API void minet_seen_free(minet_seen *seen);

/* Soft k-space consistency of magnitude images: what was measured replaces the centre of the restored image's k-space,
 * fading towards the edge of what was measured, where taking the magnitude has falsified it.
 *
 * restored: (scale * height, scale * width) in the target's intensity.
 * target: (height, width) as it was measured.
 * output: as restored; may be restored itself.
 */
MINET_API minet_status minet_put_back(minet_engine *engine, const float *restored, const float *target,
                                      uint32_t height, uint32_t width, float *output);

#ifdef __cplusplus
}
#endif

#endif
