// SPDX-License-Identifier: GPL-2.0-only
/*
 * fake-xen: grant-blkd and blkd-fuzz in one process, on a machine without Xen, at full
 * speed and with all sanitizers: what both need of gntdev, gntalloc, event channels,
 * xenstore and Xen's grant table.
 *
 *	fake-xen FILE SESSIONS SEED [OPTION OF grant-blkd]...
 *
 * Granted pages are those of a memfd, a reference is the number of its page. As in the
 * kernel, grants are checked by mmap(), which takes all or none, and a page may stay in
 * use for a moment after it was unmapped.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "blkd.h"
#include "fake-xen.h"
#include <xen/io/xenbus.h>
#include <xen/memory.h>
#include <xen/sys/gntdev.h>
#include <xengnttab.h>
#include <xenstore.h>

#define REFS		REFS_PER_FRAME
#define PORTS		256
#define BACK		"/local/domain/0/backend/gblk/1/1"
#define FRONT		"/local/domain/1/data/fuzz"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *new(size_t size)
{
	void *p = calloc(1, size);

	if (!p)
		err(1, "memory");
	return p;
}

/* ------------------------------------------------------------- grants */

struct page {
	uint32_t mapped;
	uint32_t writers;
	uint64_t held;			/* some ms after it was unmapped */
};

struct map {
	struct map *next;
	uint64_t index;
	uint32_t count;
	bool used;
	uint32_t refs[];
};

struct vma {
	struct vma *next;
	uint8_t *addr;
	uint32_t ref;
	bool write;
};

static struct grant_entry_v1 table[REFS];
static struct page pages[REFS];
static uint8_t *memory;
static uint32_t nr_refs = 8;
static struct map *maps;
static struct vma *vmas[4096];
static uint64_t next_index = PAGE;
static uint64_t clock_ms;
static int memfd, gntdev = -1;

static struct vma **vma_at(const uint8_t *addr)
{
	return &vmas[(uintptr_t)addr / PAGE % 4096];
}

static bool granted(uint32_t ref, bool write)
{
	return ref >= 8 && ref < nr_refs && !(write && table[ref].flags & GTF_readonly);
}

static void update_flags(uint32_t ref)
{
	uint16_t flags = table[ref].flags & ~(GTF_reading | GTF_writing);

	if (pages[ref].mapped || pages[ref].held)
		flags |= GTF_reading;
	if (pages[ref].writers || pages[ref].held)
		flags |= GTF_writing;
	__atomic_store_n(&table[ref].flags, flags, __ATOMIC_RELEASE);
}

/* What holds unmapped pages releases them. */
static void *clock_thread(void *unused)
{
	uint32_t ref;

	for (;;) {
		usleep(1000);
		pthread_mutex_lock(&lock);
		clock_ms++;
		for (ref = 8; ref < nr_refs; ref++) {
			if (pages[ref].held && clock_ms >= pages[ref].held) {
				pages[ref].held = 0;
				update_flags(ref);
			}
		}
		pthread_mutex_unlock(&lock);
	}
	return unused;
}

int __wrap_open64(const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list args;

	if (!strcmp(path, "/dev/xen/gntdev")) {
		gntdev = dup(memfd);
		return gntdev;
	}
	va_start(args, flags);
	if (flags & O_CREAT)
		mode = va_arg(args, mode_t);
	va_end(args);
	return __real_open64(path, flags, mode);
}

static int16_t copy_one(const struct ioctl_gntdev_grant_copy_segment *seg)
{
	bool to_guest = seg->flags & GNTCOPY_dest_gref;
	typeof(seg->source) guest = to_guest ? seg->dest : seg->source;
	void *local = to_guest ? seg->source.virt : seg->dest.virt;
	uint8_t *page = memory + (size_t)guest.foreign.ref * PAGE + guest.foreign.offset;

	if (guest.foreign.offset + seg->len > PAGE)
		errx(1, "a copy across the end of a page");
	if (!granted(guest.foreign.ref, to_guest))
		return GNTST_bad_gntref;
	memcpy(to_guest ? page : local, to_guest ? local : page, seg->len);
	return GNTST_okay;
}

static int gntdev_ioctl(unsigned long request, void *arg)
{
	struct ioctl_gntdev_unmap_grant_ref *unmap = arg;
	struct ioctl_gntdev_grant_copy *copy = arg;
	struct ioctl_gntdev_map_grant_ref *op = arg;
	struct map *map, **at;
	uint32_t i;

	switch (request) {
	case IOCTL_GNTDEV_MAP_GRANT_REF:
		map = new(sizeof(*map) + op->count * sizeof(map->refs[0]));
		map->count = op->count;
		map->index = next_index;
		for (i = 0; i < op->count; i++)
			map->refs[i] = (&op->refs[0])[i].ref;
		next_index += (uint64_t)op->count * PAGE;
		map->next = maps;
		maps = map;
		op->index = map->index;
		return 0;
	case IOCTL_GNTDEV_UNMAP_GRANT_REF:
		for (at = &maps; (map = *at); at = &map->next)
			if (map->index == unmap->index && map->count == unmap->count)
				break;
		if (!map)
			errx(1, "UNMAP_GRANT_REF of an offset that is none");
		*at = map->next;
		free(map);
		return 0;
	case IOCTL_GNTDEV_GRANT_COPY:
		for (i = 0; i < copy->count; i++)
			copy->segments[i].status = copy_one(&copy->segments[i]);
		return 0;
	}
	errx(1, "ioctl %lx", request);
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;
	int rc;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (fd != gntdev)
		return __real_ioctl(fd, request, arg);
	pthread_mutex_lock(&lock);
	rc = gntdev_ioctl(request, arg);
	pthread_mutex_unlock(&lock);
	return rc;
}

static void *gntdev_mmap(size_t len, int prot, off_t index)
{
	bool write = prot & PROT_WRITE;
	struct map *map;
	struct vma *vma;
	uint8_t *addr;
	uint32_t i;

	for (map = maps; map && map->index != (uint64_t)index; map = map->next)
		;
	if (!map || map->used || map->count != len / PAGE)
		errx(1, "mmap() of an offset that is none");
	for (i = 0; i < map->count; i++) {
		if (!granted(map->refs[i], write)) {
			errno = EINVAL;
			return MAP_FAILED;
		}
	}
	map->used = true;
	addr = __real_mmap64(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (i = 0; i < map->count; i++) {
		vma = new(sizeof(*vma));
		vma->addr = addr + (size_t)i * PAGE;
		vma->ref = map->refs[i];
		vma->write = write;
		vma->next = *vma_at(vma->addr);
		*vma_at(vma->addr) = vma;
		if (__real_mmap64(vma->addr, PAGE, prot, MAP_SHARED | MAP_FIXED, memfd,
				  (off_t)vma->ref * PAGE) == MAP_FAILED)
			err(1, "mmap");
		pages[vma->ref].mapped++;
		pages[vma->ref].writers += write;
		update_flags(vma->ref);
	}
	return addr;
}

void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *p;

	if (fd < 0 || fd != gntdev)
		return __real_mmap64(addr, len, prot, flags, fd, offset);
	pthread_mutex_lock(&lock);
	p = gntdev_mmap(len, prot, offset);
	pthread_mutex_unlock(&lock);
	return p;
}

static void vma_remove(uint8_t *addr)
{
	struct vma **at = vma_at(addr), *vma;

	while (*at && (*at)->addr != addr)
		at = &(*at)->next;
	vma = *at;
	if (!vma)
		return;
	*at = vma->next;
	pages[vma->ref].mapped--;
	pages[vma->ref].writers -= vma->write;
	if (!pages[vma->ref].mapped && !(rand() & 7))
		pages[vma->ref].held = clock_ms + 2;
	update_flags(vma->ref);
	free(vma);
}

int __wrap_munmap(void *addr, size_t len)
{
	size_t at;

	pthread_mutex_lock(&lock);
	for (at = 0; at < len; at += PAGE)
		vma_remove((uint8_t *)addr + at);
	pthread_mutex_unlock(&lock);
	return __real_munmap(addr, len);
}

xengntshr_handle *xengntshr_open(struct xentoollog_logger *logger, unsigned int flags)
{
	(void)logger;
	(void)flags;
	return (void *)table;
}

void *xengntshr_share_pages(xengntshr_handle *shr, uint32_t domid, int count, uint32_t *refs,
			    int writable)
{
	void *addr = memory + (size_t)nr_refs * PAGE;
	int i;

	(void)shr;
	(void)domid;
	for (i = 0; i < count; i++) {
		refs[i] = nr_refs;
		table[nr_refs++].flags = GTF_permit_access | (writable ? 0 : GTF_readonly);
	}
	if (nr_refs > REFS)
		errx(1, "too many pages");
	return addr;
}

xenforeignmemory_handle *xenforeignmemory_open(struct xentoollog_logger *logger,
					       unsigned int flags)
{
	(void)logger;
	(void)flags;
	return (void *)table;
}

int xenforeignmemory_close(xenforeignmemory_handle *handle)
{
	(void)handle;
	return 0;
}

xenforeignmemory_resource_handle *
xenforeignmemory_map_resource(xenforeignmemory_handle *handle, domid_t domid, unsigned int type,
			      unsigned int id, unsigned long frame, unsigned long count,
			      void **addr, int prot, int flags)
{
	(void)handle;
	(void)domid;
	(void)prot;
	(void)flags;
	if (type != XENMEM_resource_grant_table || id || frame || count != 1)
		errx(1, "another resource than the grant table");
	*addr = table;
	return (void *)table;
}

int xenforeignmemory_unmap_resource(xenforeignmemory_handle *handle,
				    xenforeignmemory_resource_handle *resource)
{
	(void)handle;
	(void)resource;
	return 0;
}

/* ------------------------------------------------------------- event channels */

struct port {
	xenevtchn_handle *owner;
	int peer;
	bool pending;
	bool masked;
};

struct xenevtchn_handle {
	int fd;
};

static struct port ports[PORTS];

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned int flags)
{
	xenevtchn_handle *handle = new(sizeof(*handle));

	(void)logger;
	(void)flags;
	handle->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return handle;
}

int xenevtchn_fd(xenevtchn_handle *handle)
{
	return handle->fd;
}

static int port_new(xenevtchn_handle *handle, int peer)
{
	int i;

	for (i = 1; i < PORTS && ports[i].owner; i++)
		;
	if (i == PORTS)
		errx(1, "no event channel is free");
	ports[i] = (struct port){ .owner = handle, .peer = peer };
	return i;
}

static void port_wake(struct port *port)
{
	if (port->pending && !port->masked)
		eventfd_write(port->owner->fd, 1);
}

xenevtchn_port_or_error_t xenevtchn_bind_unbound_port(xenevtchn_handle *handle, uint32_t domid)
{
	int port;

	(void)domid;
	pthread_mutex_lock(&lock);
	port = port_new(handle, 0);
	pthread_mutex_unlock(&lock);
	return port;
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *handle, uint32_t domid,
						     evtchn_port_t remote)
{
	int port = -1;

	(void)domid;
	pthread_mutex_lock(&lock);
	if (remote < PORTS && ports[remote].owner && !ports[remote].peer) {
		port = port_new(handle, remote);
		ports[remote].peer = port;
	}
	pthread_mutex_unlock(&lock);
	if (port < 0)
		errno = EINVAL;
	return port;
}

int xenevtchn_notify(xenevtchn_handle *handle, evtchn_port_t port)
{
	struct port *peer = &ports[ports[port].peer];

	(void)handle;
	pthread_mutex_lock(&lock);
	if (ports[port].peer && !peer->pending) {
		peer->pending = true;
		port_wake(peer);
	}
	pthread_mutex_unlock(&lock);
	return 0;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *handle)
{
	eventfd_t count;
	int i, port = -1;

	pthread_mutex_lock(&lock);
	for (i = 1; i < PORTS && port < 0; i++)
		if (ports[i].owner == handle && ports[i].pending && !ports[i].masked)
			port = i;
	if (port < 0) {
		eventfd_read(handle->fd, &count);
		errno = EAGAIN;
	} else {
		ports[port].pending = false;
		ports[port].masked = true;
	}
	pthread_mutex_unlock(&lock);
	return port;
}

int xenevtchn_unmask(xenevtchn_handle *handle, evtchn_port_t port)
{
	(void)handle;
	pthread_mutex_lock(&lock);
	ports[port].masked = false;
	port_wake(&ports[port]);
	pthread_mutex_unlock(&lock);
	return 0;
}

int xenevtchn_unbind(xenevtchn_handle *handle, evtchn_port_t port)
{
	(void)handle;
	pthread_mutex_lock(&lock);
	ports[ports[port].peer].peer = 0;
	ports[port].owner = NULL;
	pthread_mutex_unlock(&lock);
	return 0;
}

int xenevtchn_close(xenevtchn_handle *handle)
{
	int i;

	for (i = 1; i < PORTS; i++)
		if (ports[i].owner == handle)
			errx(1, "a handle is closed with a port bound");
	close(handle->fd);
	free(handle);
	return 0;
}

/* ------------------------------------------------------------- xenstore */

struct node {
	struct node *next;
	char *path;
	char *value;
};

struct watch {
	struct watch *next;
	struct xs_handle *owner;
	char *path, *token;
	bool relative;
};

struct event {
	struct event *next;
	char *path, *token;
};

struct xs_handle {
	int fd;
	struct event *events;
};

static struct node *nodes;
static struct watch *watches;

#define HOME "/local/domain/0/"

static char *full(const char *path)
{
	char *name;

	if (asprintf(&name, "%s%s", *path == '/' || *path == '@' ? "" : HOME, path) < 0)
		err(1, "memory");
	return name;
}

static bool below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return !strncmp(path, dir, len) && (!path[len] || path[len] == '/');
}

static void fire(struct watch *watch, const char *path)
{
	struct event *event = new(sizeof(*event)), **at = &watch->owner->events;

	event->path = strdup(path + (watch->relative ? strlen(HOME) : 0));
	event->token = strdup(watch->token);
	while (*at)
		at = &(*at)->next;
	*at = event;
	eventfd_write(watch->owner->fd, 1);
}

/* Of what is above a node, and, if it was removed, below */
static void changed(const char *path, bool removed)
{
	struct watch *watch;

	for (watch = watches; watch; watch = watch->next)
		if (below(path, watch->path))
			fire(watch, path);
		else if (removed && below(watch->path, path))
			fire(watch, watch->path);
}

static struct node *find(const char *path)
{
	struct node *node;

	for (node = nodes; node && strcmp(node->path, path); node = node->next)
		;
	return node;
}

struct xs_handle *xs_open(unsigned long flags)
{
	struct xs_handle *handle = new(sizeof(*handle));

	(void)flags;
	handle->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return handle;
}

int xs_fileno(struct xs_handle *handle)
{
	return handle->fd;
}

bool xs_watch(struct xs_handle *handle, const char *path, const char *token)
{
	struct watch *watch = new(sizeof(*watch));

	pthread_mutex_lock(&lock);
	watch->path = full(path);
	watch->token = strdup(token);
	watch->owner = handle;
	watch->relative = *path != '/' && *path != '@';
	watch->next = watches;
	watches = watch;
	fire(watch, watch->path);
	pthread_mutex_unlock(&lock);
	return true;
}

bool xs_unwatch(struct xs_handle *handle, const char *path, const char *token)
{
	struct watch **at, *watch;

	(void)handle;
	pthread_mutex_lock(&lock);
	for (at = &watches; (watch = *at); at = &watch->next) {
		if (!strcmp(watch->path, path) && !strcmp(watch->token, token)) {
			*at = watch->next;
			free(watch->path);
			free(watch->token);
			free(watch);
			break;
		}
	}
	pthread_mutex_unlock(&lock);
	return true;
}

char **xs_check_watch(struct xs_handle *handle)
{
	struct event *event;
	eventfd_t count;
	char **vec = NULL;
	size_t len;

	pthread_mutex_lock(&lock);
	event = handle->events;
	if (event) {
		handle->events = event->next;
		len = strlen(event->path) + 1;
		vec = new(2 * sizeof(*vec) + len + strlen(event->token) + 1);
		vec[XS_WATCH_PATH] = strcpy((char *)(vec + 2), event->path);
		vec[XS_WATCH_TOKEN] = strcpy((char *)(vec + 2) + len, event->token);
		free(event->path);
		free(event->token);
		free(event);
	} else {
		eventfd_read(handle->fd, &count);
	}
	pthread_mutex_unlock(&lock);
	if (!vec)
		errno = EAGAIN;
	return vec;
}

void *xs_read(struct xs_handle *handle, xs_transaction_t t, const char *path, unsigned int *len)
{
	char *name = full(path), *value = NULL;
	struct node *node;

	(void)handle;
	(void)t;
	pthread_mutex_lock(&lock);
	node = find(name);
	if (node) {
		value = strdup(node->value);
		*len = strlen(value);
	}
	pthread_mutex_unlock(&lock);
	free(name);
	return value;
}

bool xs_write(struct xs_handle *handle, xs_transaction_t t, const char *path, const void *data,
	      unsigned int len)
{
	char *name = full(path);
	struct node *node;

	(void)handle;
	(void)t;
	pthread_mutex_lock(&lock);
	node = find(name);
	if (!node) {
		node = new(sizeof(*node));
		node->path = strdup(name);
		node->next = nodes;
		nodes = node;
	}
	free(node->value);
	node->value = strndup(data, len);
	changed(name, false);
	pthread_mutex_unlock(&lock);
	free(name);
	return true;
}

bool xs_mkdir(struct xs_handle *handle, xs_transaction_t t, const char *path)
{
	return xs_write(handle, t, path, "", 0);
}

bool xs_rm(struct xs_handle *handle, xs_transaction_t t, const char *path)
{
	char *name = full(path);
	struct node **at, *node;

	(void)handle;
	(void)t;
	pthread_mutex_lock(&lock);
	for (at = &nodes; (node = *at); ) {
		if (!below(node->path, name)) {
			at = &node->next;
			continue;
		}
		*at = node->next;
		free(node->path);
		free(node->value);
		free(node);
	}
	changed(name, true);
	pthread_mutex_unlock(&lock);
	free(name);
	return true;
}

/* The daemon only asks for what is below its class: here there is one device. */
char **xs_directory(struct xs_handle *handle, xs_transaction_t t, const char *path,
		    unsigned int *num)
{
	char **list = new(sizeof(*list) + 2);

	(void)handle;
	(void)t;
	(void)path;
	list[0] = strcpy((char *)(list + 1), "1");
	*num = 1;
	return list;
}

bool xs_set_permissions(struct xs_handle *handle, xs_transaction_t t, const char *path,
			struct xs_permissions *perms, unsigned int num)
{
	(void)handle;
	(void)t;
	(void)path;
	(void)perms;
	(void)num;
	return true;
}

xs_transaction_t xs_transaction_start(struct xs_handle *handle)
{
	(void)handle;
	return 1;
}

bool xs_transaction_end(struct xs_handle *handle, xs_transaction_t t, bool abort)
{
	(void)handle;
	(void)t;
	(void)abort;
	return true;
}

bool xs_is_domain_introduced(struct xs_handle *handle, unsigned int domid)
{
	(void)handle;
	(void)domid;
	return true;
}

/* ------------------------------------------------------------- the test */

struct arguments {
	int argc;
	char **argv;
};

static void *daemon_thread(void *arg)
{
	struct arguments *args = arg;

	daemon_main(args->argc, args->argv);
	return NULL;
}

static bool still_mapped_here(uint32_t ref)
{
	return __atomic_load_n(&table[ref].flags, __ATOMIC_ACQUIRE) & (GTF_reading | GTF_writing);
}

static void node(const char *path, const char *value)
{
	xs_write(NULL, XBT_NULL, path, value, strlen(value));
}

int main(int argc, char **argv)
{
	char *fuzz[6] = { argv[0] };
	struct arguments args = { argc - 3, argv + 3 };
	pthread_t daemon, clock;
	sigset_t set;
	uint32_t ref;
	int i;

	if (argc < 4)
		errx(2, "usage: fake-xen FILE SESSIONS SEED [OPTION OF grant-blkd]...");
	memfd = memfd_create("pages", 0);
	if (memfd < 0 || ftruncate(memfd, (off_t)REFS * PAGE))
		err(1, "memfd");
	memory = __real_mmap64(NULL, (size_t)REFS * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd,
			       0);
	if (memory == MAP_FAILED)
		err(1, "mmap");
	sigfillset(&set);
	sigdelset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);

	node(FRONT "/state", "1");
	node(BACK "/frontend", FRONT);
	node(BACK "/params", argv[1]);
	node(BACK "/mode", "w");
	node(BACK "/online", "1");
	node(BACK "/state", "1");
	fuzz[1] = BACK;
	fuzz[2] = FRONT;
	fuzz[3] = argv[2];
	fuzz[4] = argv[3];
	still_mapped = still_mapped_here;
	if (pthread_create(&clock, NULL, clock_thread, NULL) ||
	    pthread_create(&daemon, NULL, daemon_thread, &args))
		errx(1, "thread");
	if (fuzz_main(5, fuzz))
		return 1;

	node(BACK "/online", "0");
	node(FRONT "/state", "6");
	for (i = 0; find(BACK "/state"); i++) {
		if (i == 1000)
			errx(1, "the device is not removed");
		usleep(10000);
	}
	kill(getpid(), SIGTERM);
	pthread_join(daemon, NULL);
	for (ref = 8; ref < nr_refs; ref++)
		if (pages[ref].mapped)
			errx(1, "reference %u is still mapped", ref);
	if (maps)
		errx(1, "an offset of gntdev is left");
	return 0;
}
