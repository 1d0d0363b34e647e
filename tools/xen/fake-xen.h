/* SPDX-License-Identifier: GPL-2.0-only */
/* What fake-xen.c takes from the programs that are linked with it, and from the linker */
#ifndef FAKE_XEN_H
#define FAKE_XEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct epoll_event;
struct request;

/* Set by fake-xen, which can tell whether a page is mapped */
extern bool (*still_mapped)(uint32_t ref);

int daemon_main(int argc, char **argv);
int fuzz_main(int argc, char **argv);
void *__real_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *addr, size_t len);
int __real_open64(const char *path, int flags, ...);
int __real_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __real_ioctl(int fd, unsigned long request, ...);
void __real_request_end(struct request *req, int64_t result);
void __real_io_queue(struct request *req);

#endif
