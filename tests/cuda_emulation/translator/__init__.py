"""Translates the PTX that nvcc emits into C++ that the runtime beside it executes."""
