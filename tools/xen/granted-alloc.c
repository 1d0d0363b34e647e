// SPDX-License-Identifier: GPL-2.0-only
/*
 * A library for LD_PRELOAD: what a program allocates lies in granted pages, so that a
 * test that knows nothing of Xen does its I/O on them.
 *
 * Served are posix_memalign(), aligned_alloc(), memalign(), valloc() and pvalloc() of at
 * least a page or aligned to pages, and mmap() of private anonymous memory that can be
 * read and written, at no fixed address. The memory is zero, as that of mmap() is. What
 * cannot be served, because no grants are left, is ordinary memory; it is counted.
 *
 * The environment:
 *
 *	XEN_TEST_GRANTS="DOMID REF REF..."	use these grants of a guest (dom0 only: Xen's
 *						table of the guest tells which are free).
 *						Without it: dom0's own, from gntalloc
 *	GRANTED_ALLOC_REPORT=FILE		append the counts there, not to stderr
 *
 * The process that loaded the library prints the counts of itself and all of its forked
 * children when it exits: a test must look at them, or may have tested ordinary memory.
 *
 * Each allocation is a mapping of gntdev, which keeps the file open: the program may
 * close every file descriptor. Own grants are kept by a mapping of gntalloc as far
 * behind it as the region is long, which nobody touches. A grant of a guest is used
 * again once Xen says that it is unmapped: I/O in flight can keep it after munmap().
 *
 * Differences to ordinary memory:
 *
 *	fork()		Granted memory is not inherited. The child gets a copy of it in
 *			ordinary memory here, made while other threads go on
 *	vfork(), clone() called directly: the child gets nothing
 *	exec()		the new program gets no library, as the first one removes it from
 *			the environment
 *	mprotect(), mremap() to a larger size or elsewhere: fail
 *	madvise(MADV_DONTNEED)	the next access gets SIGBUS
 *	vmap() of user memory by the kernel (rings of io_uring): fails
 *	realloc()	moves the block, maybe to ordinary memory
 *	malloc_usable_size()	must not be called
 *
 * With Debian's C library: it needs glibc's names for its own allocator.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/sys/gntalloc.h>
#include <xen/sys/gntdev.h>
#include <xen/sys/privcmd.h>

#define PAGE		4096UL
#define PAGES		65536UL
#define REGION		(PAGES * PAGE)
/* Fixed, so that a tracer knows granted memory by its address. */
#define BASE		((char *)0x100000000000UL)
#define SHADOW		(BASE + REGION)
#define REFS_PER_FRAME	(PAGE / sizeof(grant_entry_v1_t))
#define MAX_FRAMES	64
#define MAX_REFS	(MAX_FRAMES * REFS_PER_FRAME)

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_memalign(size_t align, size_t size);
void *__libc_realloc(void *old, size_t size);
void __libc_free(void *addr);

/* From how many bytes on malloc() is served */
static size_t least = SIZE_MAX;

/* Of all processes */
static struct shared {
	pid_t loader;
	uint32_t domid;
	uint32_t nr_refs;
	atomic_ulong allocations, pages, fell_back, copied;
	atomic_int error;	/* why the last one fell back */
	struct {
		uint32_t ref;
		atomic_int owner;	/* a process, maybe a dead one, or 0 */
	} slot[MAX_REFS];
} *shared;

/* From SLOT on: the number of the slot in addition */
enum use { FREE, OWN, COPY, SLOT };

static struct {
	uint32_t length;	/* of an allocation that begins here, in pages */
	uint32_t use;
} page[PAGES];

/* Protects page[], and the arguments of ioctls below. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/*
 * Without signals: a handler may allocate, or leave by siglongjmp(). Returns the mask
 * for unlock().
 */
static sigset_t lock(void)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	pthread_mutex_lock(&mutex);
	return old;
}

static void unlock(sigset_t old)
{
	pthread_mutex_unlock(&mutex);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void *real_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}

static bool is_granted(const void *addr)
{
	return shared && (char *)addr >= BASE && (char *)addr < BASE + REGION;
}

/* ------------------------------------------------------------- grants */

/* Xen's table of the guest's grants, as far as it was looked at */
static grant_entry_v1_t *table[MAX_FRAMES];

static bool ref_in_use(uint32_t ref)
{
	uint32_t frame = ref / REFS_PER_FRAME;
	privcmd_mmap_resource_t res = {
		.dom = shared->domid,
		.type = XENMEM_resource_grant_table,
		.id = XENMEM_resource_grant_table_id_shared,
		.idx = frame,
		.num = 1,
	};

	if (!table[frame]) {
		int fd = open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC);
		void *addr = real_mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		res.addr = (uintptr_t)addr;
		if (addr != MAP_FAILED && !ioctl(fd, IOCTL_PRIVCMD_MMAP_RESOURCE, &res))
			table[frame] = addr;
		if (fd >= 0)
			close(fd);
		if (!table[frame])
			return true;
	}
	return *(volatile uint16_t *)&table[frame][ref % REFS_PER_FRAME].flags &
	       (GTF_reading | GTF_writing);
}

/* Takes a slot whose grant nobody uses; -1: there is none from @slot on. */
static int slot_take(int slot)
{
	for (; slot < (int)shared->nr_refs; slot++) {
		int owner = shared->slot[slot].owner;

		if (owner && (!kill(owner, 0) || errno != ESRCH))
			continue;
		if (!ref_in_use(shared->slot[slot].ref) &&
		    atomic_compare_exchange_strong(&shared->slot[slot].owner, &owner, getpid()))
			return slot;
	}
	errno = ENOSPC;
	return -1;
}

static struct {
	struct ioctl_gntdev_map_grant_ref op;
	struct ioctl_gntdev_grant_ref more[PAGES];
} map;

static struct {
	struct ioctl_gntalloc_alloc_gref op;
	uint32_t more[PAGES];
} own;

static bool get_own(size_t first, size_t n)
{
	int fd = open("/dev/xen/gntalloc", O_RDWR | O_CLOEXEC);
	struct ioctl_gntdev_grant_ref *ref = map.op.refs;
	uint32_t *id = own.op.gref_ids;
	bool done;

	if (fd < 0)
		return false;
	own.op.domid = 0;
	own.op.flags = GNTALLOC_FLAG_WRITABLE;
	own.op.count = n;
	done = !ioctl(fd, IOCTL_GNTALLOC_ALLOC_GREF, &own) &&
	       real_mmap(SHADOW + first * PAGE, n * PAGE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, fd, own.op.index) != MAP_FAILED;
	close(fd);
	for (size_t i = 0; done && i < n; i++) {
		page[first + i].use = OWN;
		ref[i] = (struct ioctl_gntdev_grant_ref){ .ref = id[i] };
	}
	return done;
}

static bool get_foreign(size_t first, size_t n)
{
	struct ioctl_gntdev_grant_ref *ref = map.op.refs;
	int slot = -1;

	for (size_t i = 0; i < n; i++) {
		slot = slot_take(slot + 1);
		if (slot < 0)
			return false;
		page[first + i].use = SLOT + slot;
		ref[i].domid = shared->domid;
		ref[i].ref = shared->slot[slot].ref;
	}
	return true;
}

/* Reserves the addresses again, which unmaps what is there. */
static bool release(size_t first, size_t n)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;

	if (real_mmap(BASE + first * PAGE, n * PAGE, PROT_NONE, flags, -1, 0) == MAP_FAILED ||
	    real_mmap(SHADOW + first * PAGE, n * PAGE, PROT_NONE, flags, -1, 0) == MAP_FAILED)
		return false;
	for (size_t i = first; i < first + n; i++) {
		if (page[i].use >= SLOT)
			shared->slot[page[i].use - SLOT].owner = 0;
		page[i].use = FREE;
		page[i].length = 0;
	}
	return true;
}

static bool map_grants(size_t first, size_t n)
{
	int fd = open("/dev/xen/gntdev", O_RDWR | O_CLOEXEC);
	bool done;

	if (fd < 0)
		return false;
	map.op.count = n;
	done = !ioctl(fd, IOCTL_GNTDEV_MAP_GRANT_REF, &map) &&
	       real_mmap(BASE + first * PAGE, n * PAGE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, fd, map.op.index) != MAP_FAILED;
	close(fd);
	return done;
}

/* ------------------------------------------------------------- allocations */

/* The first of @n free pages; PAGES: there are none */
static size_t find_space(size_t n, size_t align)
{
	size_t first, i;

	for (first = 0; first + n <= PAGES; first = (i + align) & -align) {
		for (i = first; i < first + n && page[i].use == FREE; i++)
			;
		if (i == first + n)
			return first;
	}
	return PAGES;
}

/* Granted memory, or NULL. @align: in pages, a power of two */
static void *allocate(size_t size, size_t align)
{
	size_t n = (size - 1) / PAGE + 1, first = PAGES;
	int saved = errno;
	sigset_t mask;
	bool done = false;

	if (!shared)
		return NULL;
	mask = lock();
	errno = ENOSPC;
	if (n <= PAGES)
		first = find_space(n, align);
	if (first < PAGES) {
		done = (shared->nr_refs ? get_foreign(first, n) : get_own(first, n)) &&
			map_grants(first, n);
		page[first].length = n;
	}
	if (!done) {
		shared->fell_back++;
		shared->error = errno;
		if (first < PAGES)
			release(first, n);
	}
	unlock(mask);
	if (!done) {
		errno = saved;
		return NULL;
	}
	memset(BASE + first * PAGE, 0, n * PAGE);
	shared->allocations++;
	shared->pages += n;
	errno = saved;
	return BASE + first * PAGE;
}

/* The size of the allocation that begins at @addr; of free() or realloc() */
static size_t allocated(const void *addr)
{
	return page[((char *)addr - BASE) / PAGE].length * PAGE;
}

/* ------------------------------------------------------------- fork() */

static sigset_t fork_mask;
static int copies;

static bool is_mapped(size_t i)
{
	return page[i].use == OWN || page[i].use >= SLOT;
}

static void fork_prepare(void)
{
	fork_mask = lock();
	copies = memfd_create("granted-alloc", MFD_CLOEXEC);
	if (ftruncate(copies, REGION))
		shared->error = errno;
	/* What madvise() has unmapped is an error for pwrite(), and the copy stays zero. */
	for (size_t i = 0; i < PAGES; i++)
		if (is_mapped(i) && pwrite(copies, BASE + i * PAGE, PAGE, i * PAGE) < 0)
			shared->error = errno;
}

static void fork_parent(void)
{
	close(copies);
	unlock(fork_mask);
}

static void fork_child(void)
{
	size_t i, n;

	memset(table, 0, sizeof(table));
	real_mmap(SHADOW, REGION, PROT_NONE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	for (i = 0; i < PAGES; i += n + 1) {
		for (n = 0; i + n < PAGES && is_mapped(i + n); n++)
			page[i + n].use = COPY;
		if (n)
			real_mmap(BASE + i * PAGE, n * PAGE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_FIXED, copies, i * PAGE);
		shared->copied += n;
	}
	fork_parent();
}

/* ------------------------------------------------------------- begin and end */

static void die(const char *what)
{
	fprintf(stderr, "granted-alloc: %s: %s\n", what, strerror(errno));
	_exit(127);
}

static __attribute__((constructor)) void start(void)
{
	char *text = getenv("XEN_TEST_GRANTS"), *end;
	struct shared *new;
	unsigned long ref;

	new = real_mmap(NULL, sizeof(*new), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (new == MAP_FAILED)
		die("no memory");
	new->loader = getpid();
	if (text) {
		new->domid = strtoul(text, &text, 0);
		for (; ref = strtoul(text, &end, 0), end != text; text = end) {
			if (ref >= MAX_REFS || new->nr_refs == MAX_REFS)
				break;
			new->slot[new->nr_refs++].ref = ref;
		}
		errno = EINVAL;
		if (!new->nr_refs || *text)
			die("XEN_TEST_GRANTS");
	}
	if (real_mmap(BASE, 2 * REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
		      MAP_FIXED_NOREPLACE, -1, 0) != BASE)
		die("no addresses");
	if (pthread_atfork(fork_prepare, fork_parent, fork_child))
		die("pthread_atfork");
	unsetenv("LD_PRELOAD");
	text = getenv("GRANTED_ALLOC_MALLOC");
	if (text)
		least = strtoul(text, NULL, 0) ?: 1;
	shared = new;
}

static __attribute__((destructor)) void report(void)
{
	const char *name = getenv("GRANTED_ALLOC_REPORT");
	FILE *f;

	if (!shared || getpid() != shared->loader)
		return;
	f = name ? fopen(name, "a") : stderr;
	if (!f)
		die(name);
	fprintf(f, "granted-alloc: grants=%s allocations=%lu pages=%lu",
		shared->nr_refs ? "foreign" : "own", shared->allocations, shared->pages);
	fprintf(f, " fell_back=%lu copied=%lu error=%d\n", shared->fell_back, shared->copied,
		shared->error);
	fflush(f);
}

/* ------------------------------------------------------------- what programs call */

void *malloc(size_t size)
{
	void *addr = size >= least ? allocate(size, 1) : NULL;

	return addr ?: __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	void *addr = NULL;
	size_t all;

	if (!__builtin_mul_overflow(n, size, &all) && all >= least)
		addr = allocate(all, 1);
	return addr ?: __libc_calloc(n, size);
}

void *memalign(size_t align, size_t size)
{
	bool power = align && !(align & (align - 1));
	void *addr = NULL;

	if (size && power && align < REGION && (size >= PAGE || align >= PAGE))
		addr = allocate(size, align > PAGE ? align / PAGE : 1);
	return addr ?: __libc_memalign(align, size);
}

void *aligned_alloc(size_t align, size_t size)
{
	return memalign(align, size);
}

int posix_memalign(void **out, size_t align, size_t size)
{
	bool right = align && !(align % sizeof(void *)) && !(align & (align - 1));
	void *addr = NULL;
	int saved = errno;

	if (right)
		addr = memalign(align, size);
	if (addr)
		*out = addr;
	errno = saved;
	return addr ? 0 : right ? ENOMEM : EINVAL;
}

void *valloc(size_t size)
{
	return memalign(PAGE, size);
}

void *pvalloc(size_t size)
{
	return memalign(PAGE, (size + PAGE - 1) & -PAGE);
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *granted = NULL;

	if (!addr && len && prot == (PROT_READ | PROT_WRITE) &&
	    (flags & ~(MAP_POPULATE | MAP_NORESERVE)) == (MAP_PRIVATE | MAP_ANONYMOUS))
		granted = allocate(len, 1);
	return granted ?: real_mmap(addr, len, prot, flags, fd, offset);
}

void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
	__attribute__((alias("mmap")));

/* Of any part of an allocation, or several */
int munmap(void *addr, size_t len)
{
	sigset_t mask;
	bool done;

	if (!is_granted(addr) || (uintptr_t)addr % PAGE || !len ||
	    len > (size_t)(BASE + REGION - (char *)addr))
		return syscall(SYS_munmap, addr, len);
	mask = lock();
	done = release(((char *)addr - BASE) / PAGE, (len - 1) / PAGE + 1);
	unlock(mask);
	return done ? 0 : -1;
}

void free(void *addr)
{
	int saved = errno;

	if (!is_granted(addr))
		__libc_free(addr);
	else if (!allocated(addr) || munmap(addr, allocated(addr)))
		abort();
	errno = saved;
}

void *realloc(void *old, size_t size)
{
	size_t had;
	void *new;

	if (!is_granted(old))
		return __libc_realloc(old, size);
	had = allocated(old);
	new = size ? malloc(size) : NULL;
	if (new)
		memcpy(new, old, had < size ? had : size);
	if (new || !size)
		free(old);
	return new;
}
