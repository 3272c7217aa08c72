// The C functions: checks of pointers, and every failure as a status and a text of the calling thread.

#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <system_error>

#include "engine.h"

struct minet_plan {
  std::shared_ptr<const minet::Plan> plan;
};

struct minet_engine {
  minet::Engine engine;
};

struct minet_features {
  std::unique_ptr<minet::Features> features;
};

struct minet_seen {
  std::unique_ptr<minet::Seen> seen;
};

namespace {

constexpr char version[] = "1.1";

thread_local char last_error[512] = "";

minet_status failed(minet_status status, const char *text) {
  std::strncpy(last_error, text, sizeof last_error - 1);
  return status;
}

template <class Body>
minet_status guarded(const Body &body) noexcept {
  try {
    body();
    return MINET_OK;
  } catch (const minet::Failure &failure) {
    return failed(failure.status, failure.text.c_str());
  } catch (const std::bad_alloc &) {
    return failed(MINET_OUT_OF_MEMORY, "there is not enough memory");
  } catch (const std::length_error &) {
    return failed(MINET_OUT_OF_MEMORY, "there is not enough memory");
  } catch (const std::system_error &error) {
    return failed(MINET_OUT_OF_MEMORY, error.what());
  } catch (const std::exception &error) {
    return failed(MINET_INTERNAL, error.what());
  } catch (...) {
    return failed(MINET_INTERNAL, "unknown failure");
  }
}

void require(bool condition, const char *text) {
  if (!condition) throw minet::Failure{MINET_INVALID_ARGUMENT, text};
}

}  // namespace

extern "C" {

const char *minet_version(void) { return version; }

uint32_t minet_abi(void) { return MINET_ABI; }

const char *minet_last_error(void) { return last_error; }

int minet_supports(minet_isa isa) { return minet::supports(isa); }

minet_status minet_plan_open(const char *folder, minet_plan **plan) {
  return guarded([&] {
    require(folder && plan, "folder and plan must not be null");
    *plan = nullptr;
    *plan = new minet_plan{std::make_shared<const minet::Plan>(minet::read_plan(std::string(folder)))};
  });
}

minet_status minet_plan_from_memory(const void *program, size_t program_bytes, const void *weights,
                                    size_t weights_bytes, minet_plan **plan) {
  return guarded([&] {
    require(program && weights && plan, "program, weights and plan must not be null");
    *plan = nullptr;
    *plan = new minet_plan{std::make_shared<const minet::Plan>(
        minet::read_plan(static_cast<const unsigned char *>(program), program_bytes,
                         static_cast<const unsigned char *>(weights), weights_bytes))};
  });
}

void minet_plan_close(minet_plan *plan) { delete plan; }

minet_status minet_plan_query(const minet_plan *plan, minet_information *information) {
  return guarded([&] {
    require(plan && information, "plan and information must not be null");
    require(information->size == sizeof *information, "information has another size: compile against this minet.h");
    const minet::Plan &p = *plan->plan;
    minet_information found{};
    found.size = sizeof found;
    found.format = p.format;
    found.scale = p.scale;
    found.needs_reference = p.needs_reference();
    found.target_channels = p.tensors[p.target].channels;
    found.reference_channels = p.needs_reference() ? p.tensors[p.reference].channels : 0;
    found.restored_channels = p.tensors[p.restored].channels;
    found.operations = static_cast<uint32_t>(p.operations.size());
    found.weight_bytes = p.weights.size();
    *information = found;
  });
}

minet_status minet_engine_create(const minet_plan *plan, const minet_options *options, minet_engine **engine) {
  return guarded([&] {
    require(plan && engine, "plan and engine must not be null");
    *engine = nullptr;
    minet_options chosen{};
    if (options) {
      require(options->size == sizeof *options, "options has another size: compile against this minet.h");
      chosen = *options;
    }
    *engine = new minet_engine{{plan->plan, chosen}};
  });
}

void minet_engine_destroy(minet_engine *engine) { delete engine; }

uint32_t minet_engine_threads(const minet_engine *engine) { return engine ? engine->engine.threads() : 0; }

minet_isa minet_engine_isa(const minet_engine *engine) { return engine ? engine->engine.isa() : MINET_ISA_BEST; }

minet_status minet_engine_memory(const minet_engine *engine, uint32_t height, uint32_t width, minet_memory *memory) {
  return guarded([&] {
    require(engine && memory, "engine and memory must not be null");
    require(memory->size == sizeof *memory, "memory has another size: compile against this minet.h");
    // The layout is remembered, which the caller does not see.
    *memory = const_cast<minet_engine *>(engine)->engine.memory(height, width);
    memory->size = sizeof *memory;
  });
}

minet_status minet_prepare(minet_engine *engine, const float *reference, uint32_t height, uint32_t width,
                           void *workspace, size_t workspace_bytes, minet_features **features) {
  return guarded([&] {
    require(engine && reference && features, "engine, reference and features must not be null");
    *features = nullptr;
    std::unique_ptr<minet_features> made(new minet_features{nullptr});
    made->features = engine->engine.prepare(reference, height, width, workspace, workspace_bytes);
    *features = made.release();
  });
}

minet_status minet_restore(minet_engine *engine, const float *target, uint32_t height, uint32_t width,
                           const minet_features *features, float *restored, void *workspace, size_t workspace_bytes) {
  return guarded([&] {
    require(engine && target && restored, "engine, target and restored must not be null");
    engine->engine.restore(target, height, width, features ? features->features.get() : nullptr, restored, workspace,
                           workspace_bytes);
  });
}

minet_status minet_run(minet_engine *engine, const float *target, uint32_t height, uint32_t width,
                       const float *reference, float *restored, void *workspace, size_t workspace_bytes) {
  return guarded([&] {
    require(engine && target && restored, "engine, target and restored must not be null");
    engine->engine.run(target, height, width, reference, restored, workspace, workspace_bytes);
  });
}

void minet_features_free(minet_features *features) { delete features; }

minet_status minet_normalise(const minet_engine *engine, const float *image, size_t pixels, double epsilon,
                             float *normal, minet_level *level) {
  return guarded([&] {
    require(engine && image && normal && level, "engine, image, normal and level must not be null");
    *level = engine->engine.normalise(image, pixels, epsilon, normal);
  });
}

minet_status minet_undo(const minet_engine *engine, const float *normal, size_t pixels, const minet_level *level,
                        float *image) {
  return guarded([&] {
    require(engine && normal && level && image, "engine, normal, level and image must not be null");
    engine->engine.undo(normal, pixels, *level, image);
  });
}

minet_status minet_see(minet_engine *engine, const float *reference, uint32_t height, uint32_t width,
                       minet_seen **seen) {
  return guarded([&] {
    require(engine && reference && seen, "engine, reference and seen must not be null");
    *seen = nullptr;
    std::unique_ptr<minet_seen> made(new minet_seen{nullptr});
    made->seen = engine->engine.see(reference, height, width);
    *seen = made.release();
  });
}

size_t minet_seen_bytes(const minet_seen *seen) { return seen ? seen->seen->memory.size() : 0; }

minet_status minet_trust(minet_engine *engine, const float *target, uint32_t height, uint32_t width,
                         const minet_seen *seen, double *trust) {
  return guarded([&] {
    require(engine && target && seen && trust, "engine, target, seen and trust must not be null");
    *trust = engine->engine.trust(target, height, width, *seen->seen);
  });
}

void minet_seen_free(minet_seen *seen) { delete seen; }

minet_status minet_put_back(minet_engine *engine, const float *restored, const float *target, uint32_t height,
                            uint32_t width, float *output) {
  return guarded([&] {
    require(engine && restored && target && output, "engine, restored, target and output must not be null");
    engine->engine.put_back(restored, target, height, width, output);
  });
}

}  // extern "C"
