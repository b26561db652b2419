# Sets HEARTH_HAS_CUDA where the GPU kernels can be compiled, and then enables the language.
set(HEARTH_HAS_CUDA OFF)
if(NOT HEARTH_CUDA)
  message(STATUS "GPU kernels: left out (HEARTH_CUDA is off)")
  return()
elseif(HEARTH_SANITIZE)
  message(STATUS "GPU kernels: left out (sanitizers are for host code)")
  return()
endif()

find_package(CUDAToolkit 12.8 QUIET)  # the first that knows sm_120
if(NOT CUDAToolkit_FOUND OR NOT CUDAToolkit_NVCC_EXECUTABLE)
  message(STATUS "GPU kernels: left out (no CUDA compiler found, nvcc 12.8 or later); hearth will run on the CPU")
  return()
endif()
if(NOT CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)  # one alone compiles in half the time
  set(CMAKE_CUDA_ARCHITECTURES 90-real 120)
endif()
enable_language(CUDA)
set(HEARTH_HAS_CUDA ON)
message(STATUS "GPU kernels: for architectures ${CMAKE_CUDA_ARCHITECTURES}, with CUDA ${CUDAToolkit_VERSION}")

if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that this compiler has it
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
string(REPLACE ";" "," host_warnings "${warnings}")
# Host code that calls a device function compiles, and ends the program without a word.
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${host_warnings};--Werror=cross-execution-space-call>")
if(HEARTH_WERROR)
  add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:--Werror=all-warnings>")
endif()
