/* Preloaded, it lets each file below STALE_PATH fail with STALE_ERRNO at its first STALE_COUNT calls of a kind, as a
   network's file system does. Only paths with one of STALE_PARTS (apart by :) in them are meant. Hidden files, whose
   names are drawn anew at each try, count as one for each folder. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KNOWN = 4096 };
static unsigned long known[KNOWN];
static int times[KNOWN];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int meant(const char *path) {
    const char *below = getenv("STALE_PATH"), *parts = getenv("STALE_PARTS");
    if (!path || !below || strncmp(path, below, strlen(below))) return 0;
    char copy[256], *rest = copy;
    snprintf(copy, sizeof copy, "%s", parts ? parts : "/");
    for (char *part; (part = strsep(&rest, ":"));)
        if (strstr(path, part)) return 1;
    return 0;
}

static int fails(const char *kind, const char *path) {
    if (!meant(path)) return 0;
    unsigned long hash = 5381;
    for (const char *c = kind; *c; c++) hash = hash * 33 + *c;
    const char *name = strrchr(path, '/'), *end = name && name[1] == '.' ? name : path + strlen(path);
    for (const char *c = path; c < end; c++) hash = hash * 33 + *c;
    const char *count = getenv("STALE_COUNT"), *number = getenv("STALE_ERRNO"), *log = getenv("STALE_LOG");
    pthread_mutex_lock(&lock);
    int at = hash % KNOWN;
    while (known[at] && known[at] != hash) at = (at + 1) % KNOWN;
    known[at] = hash;
    int now = times[at]++ < atoi(count ? count : "1");
    pthread_mutex_unlock(&lock);
    if (now && log) {
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
        int to = real(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        dprintf(to, "%s %s\n", kind, path);
        close(to);
    }
    if (now) errno = number ? atoi(number) : ESTALE;
    return now;
}

#define OPEN(name)                                                        \
    int name(const char *path, int flags, ...) {                          \
        va_list more;                                                     \
        va_start(more, flags);                                            \
        int mode = va_arg(more, int);                                     \
        va_end(more);                                                     \
        if (fails("open", path)) return -1;                               \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);    \
        return real(path, flags, mode);                                   \
    }
OPEN(open)
OPEN(open64)

int rename(const char *from, const char *to) {
    if (fails("rename", to)) return -1;
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    return real(from, to);
}

int link(const char *from, const char *to) {
    if (fails("link", to)) return -1;
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "link");
    return real(from, to);
}

int fsync(int file) {
    char name[64], path[4096] = "";
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    if (readlink(name, path, sizeof path - 1) > 0 && fails("fsync", path)) return -1;
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    return real(file);
}
