/* Counts every call by which a process changes files below a folder, over all its threads, and lets
 * the Nth one meet its fate. Loaded by LD_PRELOAD; strace counts each thread for itself.
 *
 *   SHIM_DIR   the folder
 *   SHIM_LOG   a line a call: number, name, path
 *   SHIM_AT    the number of the call that is hit; 0: none
 *   SHIM_DO    kill: a write is half done, then SIGKILL; EIO, ENOSPC: the call fails
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;
static const char *dir, *what = "none";
static long at;
static int log_fd = -1;

__attribute__((constructor)) static void begin(void) {
  dir = getenv("SHIM_DIR");
  const char *n = getenv("SHIM_AT"), *log = getenv("SHIM_LOG");
  if (getenv("SHIM_DO")) what = getenv("SHIM_DO");
  at = n ? atol(n) : 0;
  int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
  if (log) log_fd = syscall(SYS_openat, AT_FDCWD, log, flags, 0600);
}

static void die(void) {
  for (;;) syscall(SYS_kill, getpid(), SIGKILL);
}

/* Notes a call; gives 1 if it is the one that is hit. A kill is left to the caller when `half`. */
static int hit(const char *name, const char *path, int half) {
  if (!dir || !path || strncmp(path, dir, strlen(dir))) return 0;
  long n = atomic_fetch_add(&calls, 1) + 1;
  char line[4200];
  int length = snprintf(line, sizeof line, "%ld %s %s\n", n, name, path);
  if (log_fd >= 0) syscall(SYS_write, log_fd, line, length);
  if (n != at) return 0;
  if (!strcmp(what, "kill")) {
    if (!half) die();
    return 1;
  }
  errno = strcmp(what, "ENOSPC") ? EIO : ENOSPC;
  return 1;
}

static const char *path_of(int fd, char *out, size_t size) {
  char link[40];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, out, size - 1);
  if (length < 0) return NULL;
  out[length] = 0;
  return out;
}

static int hit_fd(const char *name, int fd, int half) {
  char path[4096];
  int before = errno;
  const char *found = path_of(fd, path, sizeof path);
  errno = before;
  return hit(name, found, half);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define IS_KILL (!strcmp(what, "kill"))

ssize_t write(int fd, const void *bytes, size_t n) {
  if (hit_fd("write", fd, 1)) {
    if (!IS_KILL) return -1;
    REAL(write)(fd, bytes, n / 2);
    die();
  }
  return REAL(write)(fd, bytes, n);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t from) {
  if (hit_fd("pwrite", fd, 1)) {
    if (!IS_KILL) return -1;
    REAL(pwrite64)(fd, bytes, n / 2, from);
    die();
  }
  return REAL(pwrite64)(fd, bytes, n, from);
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
  return hit_fd("writev", fd, 0) ? -1 : REAL(writev)(fd, parts, n);
}

int fsync(int fd) { return hit_fd("fsync", fd, 0) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return hit_fd("fdatasync", fd, 0) ? -1 : REAL(fdatasync)(fd); }

int ftruncate64(int fd, off64_t n) {
  return hit_fd("ftruncate", fd, 0) ? -1 : REAL(ftruncate64)(fd, n);
}

int sync_file_range(int fd, off64_t from, off64_t n, unsigned flags) {
  return hit_fd("sync_file_range", fd, 0) ? -1 : REAL(sync_file_range)(fd, from, n, flags);
}

int fallocate64(int fd, int mode, off64_t from, off64_t n) {
  return hit_fd("fallocate", fd, 0) ? -1 : REAL(fallocate64)(fd, mode, from, n);
}

int rename(const char *from, const char *to) {
  return hit("rename", from, 0) ? -1 : REAL(rename)(from, to);
}

int unlink(const char *path) { return hit("unlink", path, 0) ? -1 : REAL(unlink)(path); }
int rmdir(const char *path) { return hit("rmdir", path, 0) ? -1 : REAL(rmdir)(path); }

int mkdir(const char *path, mode_t mode) {
  return hit("mkdir", path, 0) ? -1 : REAL(mkdir)(path, mode);
}

/* Opening without making changes nothing, but may fail all the same. */
int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  if (hit(flags & O_CREAT ? "create" : "open", path, 0)) return -1;
  return REAL(open64)(path, flags, mode);
}
