# LEANCORE_CUDA=AUTO|ON|OFF, and finding nvcc; sets leancore_with_cuda.
#
# With OFF, the default until the kernels have been run on a GPU, nothing of CUDA is looked for. AUTO takes a CUDA
# compiler where there is one. Without a toolkit, nvcc may come from PyPI's wheels (nvidia-cuda-nvcc and its companions)
# in the Python environment that builds.
set(LEANCORE_CUDA OFF CACHE STRING "Build the CUDA kernels: AUTO, ON or OFF")
set_property(CACHE LEANCORE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(LEANCORE_CUDA_ARCHITECTURES "75-real;80;86-real;89-real;90-real;100-real;120-real" CACHE STRING
    "Compute capabilities that the CUDA kernels are compiled for; without -real, PTX for others is kept as well")
set(leancore_with_cuda OFF)
if(LEANCORE_CUDA AND LEANCORE_CUDA_EMULATION)
  message(FATAL_ERROR "LEANCORE_CUDA_EMULATION is for a build without CUDA: set LEANCORE_CUDA=OFF")
endif()
if(LEANCORE_CUDA STREQUAL "AUTO" OR LEANCORE_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    find_package(Python COMPONENTS Interpreter QUIET)
    if(Python_EXECUTABLE)
      execute_process(
        COMMAND ${Python_EXECUTABLE} -c [[
import importlib.util, pathlib
spec = importlib.util.find_spec("nvidia")
roots = [pathlib.Path(root) / "cu13" for root in spec.submodule_search_locations] if spec else []
print(next((root for root in roots if (root / "bin" / "nvcc").exists()), ""))]]
        OUTPUT_VARIABLE leancore_wheel_toolkit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    endif()
    if(leancore_wheel_toolkit)
      # nvcc looks for its libraries in lib64; the wheels have lib.
      set(ENV{NVCC_APPEND_FLAGS} "-L${leancore_wheel_toolkit}/lib")
      set(ENV{CUDACXX} "${leancore_wheel_toolkit}/bin/nvcc")
      unset(CMAKE_CUDA_COMPILER CACHE)
      unset(CMAKE_CUDA_COMPILER)
      check_language(CUDA)
      set(CUDAToolkit_ROOT "${leancore_wheel_toolkit}")
      # The wheels have no libcudart.so without a version, which CMake looks for.
      set(CUDA_CUDART "${leancore_wheel_toolkit}/lib/libcudart.so.13" CACHE FILEPATH "")
    endif()
  endif()
  if(CMAKE_CUDA_COMPILER)
    set(leancore_with_cuda ON)
    enable_language(CUDA)
    if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # before CMake 3.25.2
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    endif()
    find_package(CUDAToolkit REQUIRED)
  elseif(NOT LEANCORE_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "LEANCORE_CUDA is ${LEANCORE_CUDA}, but no CUDA compiler was found: put nvcc on the PATH, set "
                        "CUDACXX, or build with LEANCORE_CUDA=OFF")
  endif()
endif()

# nvcc's options for LEANCORE_CUDA_ARCHITECTURES, and what `leancore info` says of them. The kernels tell 8.0 and later
# from what is before: from 8.0 on, one PTX serves all. So it is compiled once, and is the one that tests/cuda_emulation
# runs.
function(leancore_cuda_code options text)
  foreach(entry IN LISTS LEANCORE_CUDA_ARCHITECTURES)
    if(NOT entry MATCHES "^([0-9]+)(-real|-virtual)?$")
      message(FATAL_ERROR "LEANCORE_CUDA_ARCHITECTURES has '${entry}', expected numbers such as 80 or 80-real")
    endif()
    set(number ${CMAKE_MATCH_1})
    set(kind "${CMAKE_MATCH_2}")
    set(source 80)
    if(number LESS 80)
      set(source ${number})
    endif()
    list(APPEND sources ${source})
    if(NOT kind STREQUAL "-virtual")
      list(APPEND code_${source} sm_${number})
      list(APPEND names ${number})
    endif()
    if(NOT kind STREQUAL "-real")
      list(APPEND code_${source} compute_${source})
      list(APPEND ptx "PTX ${source}")
    endif()
  endforeach()
  list(REMOVE_DUPLICATES sources)
  foreach(source IN LISTS sources)
    list(REMOVE_DUPLICATES code_${source})
    list(JOIN code_${source} "," code)
    list(APPEND found "--generate-code=arch=compute_${source},code=[${code}]")
  endforeach()
  list(JOIN names " " names)
  list(REMOVE_DUPLICATES ptx)
  foreach(each IN LISTS ptx)
    string(APPEND names ", ${each}")
  endforeach()
  set(${options} "${found}" PARENT_SCOPE)
  set(${text} "${names}" PARENT_SCOPE)
endfunction()
