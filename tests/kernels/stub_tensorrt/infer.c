/* Stands for libnvinfer: gives NVIDIA's Python bindings the symbols that they are linked with, and nothing behind them. */
#include <stddef.h>

void *createInferBuilder_INTERNAL(void) { return NULL; }
void *createInferRefitter_INTERNAL(void) { return NULL; }
void *createInferRuntime_INTERNAL(void) { return NULL; }
void *getBuilderPluginRegistry(void) { return NULL; }
void *getPluginRegistry(void) { return NULL; }
