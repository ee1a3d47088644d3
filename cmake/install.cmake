# Headers, static library and CMake package: installed by `cmake --install`, and inside the wheel, below the package.
include(CMakePackageConfigHelpers)

if(DEFINED SKBUILD)
  set(leancore_libdir lib)
  set(leancore_includedir include)
else()
  include(GNUInstallDirs)
  set(leancore_libdir ${CMAKE_INSTALL_LIBDIR})
  set(leancore_includedir ${CMAKE_INSTALL_INCLUDEDIR})
endif()
set(leancore_cmakedir ${leancore_libdir}/cmake/leancore)

install(TARGETS leancore EXPORT leancore ARCHIVE DESTINATION ${leancore_libdir})
target_include_directories(leancore INTERFACE $<INSTALL_INTERFACE:${leancore_includedir}>)
install(DIRECTORY cpp/include/leancore DESTINATION ${leancore_includedir} FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
install(EXPORT leancore FILE leancoreTargets.cmake NAMESPACE leancore:: DESTINATION ${leancore_cmakedir})
export(EXPORT leancore FILE ${PROJECT_BINARY_DIR}/leancoreTargets.cmake NAMESPACE leancore::)

configure_package_config_file(cmake/leancoreConfig.cmake.in ${PROJECT_BINARY_DIR}/leancoreConfig.cmake
                              INSTALL_DESTINATION ${leancore_cmakedir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/leancoreConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/leancoreConfig.cmake ${PROJECT_BINARY_DIR}/leancoreConfigVersion.cmake
        DESTINATION ${leancore_cmakedir})
