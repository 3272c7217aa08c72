// A driver that answers what it was compiled to answer: INIT and COUNT_STATUS are error numbers, VERSION is that of
// cuDriverGetVersion, DEVICES how many there are, MAJOR and MINOR their compute capability, HANG seconds until cuInit
// returns, CRASH makes it die.
#include <signal.h>
#include <string.h>
#include <unistd.h>

int cuInit(unsigned flags) {
  if (CRASH) raise(SIGSEGV);
  if (HANG) sleep(HANG);
  return flags == 0 ? INIT : 1;
}
int cuDriverGetVersion(int* version) { *version = VERSION; return 0; }
int cuDeviceGetCount(int* count) { *count = DEVICES; return COUNT_STATUS; }
int cuDeviceGet(int* device, int ordinal) { *device = 10 + ordinal; return 0; }
int cuDeviceGetName(char* name, int size, int device) {
  strncpy(name, device == 10 ? "Stub A" : "Stub B", size);
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? MAJOR : attribute == 76 ? MINOR : -1;
  return device >= 10 ? 0 : 101;
}
int cuGetErrorName(int error, const char** text) { *text = "CUDA_ERROR_STUBBED"; return error == 7777; }
int cuGetErrorString(int error, const char** text) { *text = "nobody is at home"; return error == 7777; }
