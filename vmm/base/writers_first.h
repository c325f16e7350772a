// A lock that many may share and one may have alone, in which those who wait to have it alone come
// before those who come to share it. std::shared_mutex is the other way round with glibc: as long
// as sharers follow one another without a gap, nobody ever has it alone, and a guest's vCPUs can
// see to that (XSA-114). A thread that shares it must not share it once more.
#pragma once

#include <pthread.h>

namespace vmm {

class WritersFirstMutex {
  public:
    WritersFirstMutex() {
        // None of these can fail with what they are given here.
        pthread_rwlockattr_t how;
        ::pthread_rwlockattr_init(&how);
        ::pthread_rwlockattr_setkind_np(&how, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
        ::pthread_rwlock_init(&lock_, &how);
        ::pthread_rwlockattr_destroy(&how);
    }
    WritersFirstMutex(const WritersFirstMutex&) = delete;
    WritersFirstMutex& operator=(const WritersFirstMutex&) = delete;
    ~WritersFirstMutex() { ::pthread_rwlock_destroy(&lock_); }

    // For std::unique_lock and std::shared_lock.
    void lock() { ::pthread_rwlock_wrlock(&lock_); }
    bool try_lock() { return ::pthread_rwlock_trywrlock(&lock_) == 0; }
    void unlock() { ::pthread_rwlock_unlock(&lock_); }
    void lock_shared() { ::pthread_rwlock_rdlock(&lock_); }
    bool try_lock_shared() { return ::pthread_rwlock_tryrdlock(&lock_) == 0; }
    void unlock_shared() { ::pthread_rwlock_unlock(&lock_); }

  private:
    pthread_rwlock_t lock_;
};

}  // namespace vmm
