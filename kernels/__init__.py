"""The integration, independent of any framework: reference arithmetic that kernels and graphs are checked against."""
