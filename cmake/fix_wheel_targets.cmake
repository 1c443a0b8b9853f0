# SPDX-License-Identifier: Apache-2.0
# The ROS 2 wheels on PyPI export Python targets with the include directories of the machine that built them.
# CMake refuses a target whose include directory does not exist, so this function replaces the missing ones
# with the include directories of Python and numpy here.
find_package(Python3 REQUIRED COMPONENTS Interpreter Development NumPy)

function(fix_wheel_targets)
  foreach(package ${ARGN} service_msgs action_msgs unique_identifier_msgs)
    find_package(${package} REQUIRED)
    set(target ${package}::${package}__rosidl_generator_py)
    if(TARGET ${target})
      get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
      set(existing)
      foreach(directory ${directories})
        if(EXISTS ${directory})
          list(APPEND existing ${directory})
        endif()
      endforeach()
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES
        "${existing};${Python3_INCLUDE_DIRS};${Python3_NumPy_INCLUDE_DIRS}")
    endif()
  endforeach()
endfunction()
