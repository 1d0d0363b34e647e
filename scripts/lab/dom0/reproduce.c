// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the stock kernel gets wrong about granted pages, one at a time, in dom0:
 *
 *   reproduce CASE DOMID REF...
 *
 * Each case is what an ordinary program may do. The program says in one line
 * what it saw and exits 0 if that was right, 1 if it was wrong, and 2 or more
 * if it could not get as far as looking.
 */
#include "grant-map.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define MAX_PAGES 8
#define READ_WRITE (PROT_READ | PROT_WRITE)

static int gntdev;
static struct grants grants;

static int wrong(const char *text)
{
	puts(text);
	return 1;
}

/* Holds the pages in a pipe, as a process with data in flight does. */
static void into_pipe(int pipe_in, void *addr, size_t len)
{
	struct iovec vec = { .iov_base = addr, .iov_len = len };

	if (vmsplice(pipe_in, &vec, 1, 0) != (ssize_t)len)
		err(2, "vmsplice of %zu bytes", len);
}

static void new_pipe(int *fds)
{
	if (pipe(fds))
		err(2, "pipe");
	/* What is lost shows as a short read, not as a read that waits. */
	if (fcntl(fds[0], F_SETFL, O_NONBLOCK))
		err(2, "O_NONBLOCK");
}

/* What comes out of the pipe, against what the pages held when it went in. */
static int check_pipe(int pipe_out, const void *expected, size_t len)
{
	static char got[MAX_PAGES * PAGE];
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(pipe_out, got + done, len - done);

		if (n <= 0) {
			printf("data in flight lost: read after %zu of %zu bytes: %s\n", done, len,
			       n ? strerror(errno) : "end of file");
			return 1;
		}
		done += n;
	}
	if (memcmp(got, expected, len))
		return wrong("data in flight changed");
	puts("data in flight right");
	return 0;
}

static int pipe_munmap(void)
{
	char *addr = grants_map(gntdev, &grants, 0, grants.count, READ_WRITE);
	static char copy[MAX_PAGES * PAGE];
	size_t len = grants.count * PAGE;
	int fds[2];

	memcpy(copy, addr, len);
	new_pipe(fds);
	into_pipe(fds[1], addr, len);
	if (munmap(addr, len))
		err(2, "munmap");
	return check_pipe(fds[0], copy, len);
}

static int same_grant_twice(void)
{
	char *first = grants_map(gntdev, &grants, 0, 1, READ_WRITE);
	char *second = grants_map(gntdev, &grants, 0, 1, READ_WRITE);
	static char copy[PAGE];
	int fds[2], ret;

	memcpy(copy, first, PAGE);
	new_pipe(fds);
	into_pipe(fds[1], second, PAGE);
	if (munmap(second, PAGE))
		err(2, "munmap");
	ret = check_pipe(fds[0], copy, PAGE);
	if (!ret && memcmp(copy, first, PAGE))
		return wrong("the other mapping changed");
	return ret;
}

/* Two pinned pages with others between them, unmapped in three parts. */
static int partial_munmaps(void)
{
	static char copy[MAX_PAGES * PAGE];
	int fds[2];
	char *addr;

	if (grants.count != 6)
		errx(2, "partial-munmaps wants 6 grants");
	addr = grants_map(gntdev, &grants, 0, 6, READ_WRITE);
	memcpy(copy, addr, PAGE);
	memcpy(copy + PAGE, addr + 2 * PAGE, PAGE);
	new_pipe(fds);
	into_pipe(fds[1], addr, PAGE);
	into_pipe(fds[1], addr + 2 * PAGE, PAGE);
	for (int part = 0; part < 3; part++) {
		if (munmap(addr + part * 2 * PAGE, 2 * PAGE))
			err(2, "munmap of part %d", part);
	}
	/* The kernel's retries come while the pages are still held. */
	usleep(300000);
	return check_pipe(fds[0], copy, 2 * PAGE);
}

enum ending { KILLED, EXECED, DONTNEEDED };

/* A process with data in flight loses its mapping in one of three ways. */
static int child_ends(enum ending ending)
{
	size_t len = grants.count * PAGE;
	int fds[2], ready[2], status;
	char *shared, byte;
	pid_t pid;

	shared = mmap(NULL, len, READ_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		err(2, "mmap");
	new_pipe(fds);
	if (pipe(ready))
		err(2, "pipe");
	pid = fork();
	if (pid < 0)
		err(2, "fork");
	if (!pid) {
		/* A mapping is bound to the process that opened the device. */
		char *addr = grants_map(gntdev_open(), &grants, 0, grants.count, READ_WRITE);

		memcpy(shared, addr, len);
		into_pipe(fds[1], addr, len);
		if (ending == DONTNEEDED && madvise(addr, len, MADV_DONTNEED))
			err(2, "MADV_DONTNEED");
		if (write(ready[1], "r", 1) != 1)
			_exit(2);
		if (ending == EXECED)
			execl("/bin/true", "true", NULL);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		errx(2, "the child did not get its data into the pipe");
	if (ending == KILLED)
		kill(pid, SIGKILL);
	if (ending != DONTNEEDED && waitpid(pid, &status, 0) != pid)
		err(2, "waitpid");
	status = check_pipe(fds[0], shared, len);
	kill(pid, SIGKILL);
	return status;
}

static sigjmp_buf after_signal;

static void on_signal(int sig)
{
	siglongjmp(after_signal, sig);
}

/* The signal that reading the mapping ends in; 0 if it gives what it gave before. */
static int access_signal(const char *addr, char expected)
{
	int sig;

	signal(SIGBUS, on_signal);
	signal(SIGSEGV, on_signal);
	sig = sigsetjmp(after_signal, 1);
	if (!sig && __atomic_load_n(addr, __ATOMIC_RELAXED) != expected)
		errx(2, "the mapping's bytes changed");
	return sig;
}

static int change_protection(int before, int after)
{
	size_t len = grants.count * PAGE;
	char *addr = grants_map(gntdev, &grants, 0, grants.count, before);
	char byte = addr[0];
	int refused, sig;

	refused = mprotect(addr, len, after) ? errno : 0;
	sig = access_signal(addr, byte);
	printf("mprotect(): %s; then reading: %s\n", refused ? strerror(refused) : "success",
	       sig ? strsignal(sig) : "as before");
	/* A read-only grant must not even seem to become writable. */
	return sig || (!refused && (after & PROT_WRITE));
}

static int clear_soft_dirty(void)
{
	char *addr = grants_map(gntdev, &grants, 0, grants.count, READ_WRITE);
	int fd = open("/proc/self/clear_refs", O_WRONLY);
	char byte = addr[0];
	int sig;

	if (fd < 0 || write(fd, "4", 1) != 1)
		err(2, "/proc/self/clear_refs");
	sig = access_signal(addr, byte);
	printf("then reading: %s\n", sig ? strsignal(sig) : "as before");
	return sig != 0;
}

int main(int argc, char **argv)
{
	const char *name = argv[1];

	if (argc < 4)
		errx(2, "usage: reproduce CASE DOMID REF...");
	grants = parse_grants(argv + 2);
	if (grants.count > MAX_PAGES)
		errx(2, "at most %u grants", MAX_PAGES);
	gntdev = gntdev_open();

	if (!strcmp(name, "pipe-munmap"))
		return pipe_munmap();
	if (!strcmp(name, "same-grant-twice"))
		return same_grant_twice();
	if (!strcmp(name, "killed"))
		return child_ends(KILLED);
	if (!strcmp(name, "execed"))
		return child_ends(EXECED);
	if (!strcmp(name, "dontneeded"))
		return child_ends(DONTNEEDED);
	if (!strcmp(name, "mprotect-read"))
		return change_protection(READ_WRITE, PROT_READ);
	if (!strcmp(name, "mprotect-write"))
		return change_protection(PROT_READ, READ_WRITE);
	if (!strcmp(name, "clear-refs"))
		return clear_soft_dirty();
	if (!strcmp(name, "partial-munmaps"))
		return partial_munmaps();
	errx(2, "unknown case '%s'", name);
}
