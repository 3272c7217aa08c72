"""The native CPU engine: a C++ library without dependencies, and how it is built."""
