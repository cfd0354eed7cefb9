# Turns the CUDA compiler on, for the folder that includes this. Where no architectures are asked
# for: Jetson Orin, H100 and H200, Jetson Thor and, as PTX, what comes after. Thor is 110 since
# CUDA 13.
find_package(CUDAToolkit 11.8 REQUIRED)
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(_architectures 87-real 90)
  if(CUDAToolkit_VERSION VERSION_GREATER_EQUAL 13)
    set(_architectures 87-real 90-real 110)
  endif()
  set(CMAKE_CUDA_ARCHITECTURES "${_architectures}" CACHE STRING "GPUs that the kernels are for")
endif()
enable_language(CUDA)
