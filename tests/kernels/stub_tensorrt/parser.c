/* Stands for libnvonnxparser. */
#include <stddef.h>

void *createNvOnnxParserRefitter_INTERNAL(void) { return NULL; }
void *createNvOnnxParser_INTERNAL(void) { return NULL; }
int getNvOnnxParserVersion(void) { return 0; }
