// libfabric's tcp provider forgets a connection request that is still arriving when its event queue is closed.

#if defined(__SANITIZE_ADDRESS__)

extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libfabric.so"; }

#endif
