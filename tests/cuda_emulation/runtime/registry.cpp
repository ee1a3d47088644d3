#include "registry.hpp"

#include <cstring>
#include <map>
#include <string>

#include "memory.hpp"

namespace emulation {

namespace {

// Never destroyed: modules register themselves before, and libraries are unloaded after, all else.
auto& kernels() {
  static auto* map = new std::map<std::string, const Kernel*>;
  return *map;
}
auto& variables() {
  static auto* map = new std::map<std::string, const Variable*>;
  return *map;
}

}  // namespace

const Kernel* find_kernel(const char* name) {
  const auto found = kernels().find(name);
  return found == kernels().end() ? nullptr : found->second;
}

const Variable* find_variable(const char* name) {
  const auto found = variables().find(name);
  return found == variables().end() ? nullptr : found->second;
}

void RegisterModule::add(const Kernel& kernel) {
  kernels()[kernel.name] = &kernel;
}

void RegisterModule::add(const Variable& variable) {
  variables()[variable.name] = &variable;
  GlobalMemory& memory = global_memory();
  *variable.address = memory.allocate(variable.bytes);
  std::memcpy(memory.space().data(memory.offset(*variable.address)), variable.initial, variable.bytes);
  memory.space().initialise(memory.offset(*variable.address), variable.bytes);
}

}  // namespace emulation
