# SPDX-License-Identifier: Apache-2.0
# The ROS wheels of PyPI export Python targets with include directories of the machine that built them.
# CMake refuses a target whose include directory does not exist, so those are pointed at this Python's.
find_package(Python3 REQUIRED COMPONENTS Interpreter Development NumPy)

function(fix_wheel_targets)
  foreach(package ${ARGN} service_msgs action_msgs unique_identifier_msgs)
    find_package(${package} REQUIRED)
    set(target ${package}::${package}__rosidl_generator_py)
    if(TARGET ${target})
      get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
      set(mended)
      foreach(directory ${directories})
        if(EXISTS ${directory})
          list(APPEND mended ${directory})
        endif()
      endforeach()
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES
        "${mended};${Python3_INCLUDE_DIRS};${Python3_NumPy_INCLUDE_DIRS}")
    endif()
  endforeach()
endfunction()
