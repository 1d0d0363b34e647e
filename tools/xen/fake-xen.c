// SPDX-License-Identifier: GPL-2.0-only
/*
 * fake-xen: grant-blkd and blkd-fuzz on a machine without Xen, at full
 * speed and with all sanitizers: what both need of gntdev, gntalloc, event channels,
 * xenstore and Xen's grant table.
 *
 *	fake-xen FILE r|w SESSIONS SEED KILLS [OPTION OF grant-blkd]...
 *
 * Granted pages are those of a memfd, a reference is the number of its page. As in the
 * kernel, grants are checked by mmap(), which takes all or none, and a page may stay in
 * use for a moment after it was unmapped. Some transfers are reported as short.
 *
 * The daemon is a process of its own. With KILLS it is killed every so many milliseconds,
 * now and then by SIGTERM, and started again: the frontend must not notice. What both
 * processes use is in memory that they share.
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
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "blkd.h"
#include "fake-xen.h"
#include <xen/io/xenbus.h>
#include <xen/memory.h>
#include <xen/sys/gntdev.h>
#include <xengnttab.h>
#include <xenstore.h>

#define REFS		REFS_PER_FRAME
#define FIRST_REF	1		/* such references lie behind a struct inflight */
#define PORTS		256
#define EVENTFDS	64
#define VMA_BUCKETS	4096
#define SHARED_SIZE	(8ULL << 30)
#define BACK		"/local/domain/0/backend/gblk/1/1"
#define FRONT		"/local/domain/1/data/fuzz"

struct page {
	uint32_t mapped;
	uint32_t writers;
	uint64_t held;			/* some ms after it was unmapped */
};

struct map {
	struct map *next;
	pid_t owner;
	uint64_t index;
	uint32_t count;
	bool used;
	uint32_t refs[];
};

struct vma {
	struct vma *next;
	pid_t owner;
	uint8_t *addr;
	uint32_t ref;
	bool write;
};

struct port {
	xenevtchn_handle *owner;
	int peer;
	bool pending;
	bool masked;
};

struct xenevtchn_handle {
	pid_t owner;
	int fd;
};

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
	pid_t owner;
	int fd;
	struct event *events;
};

/* What the two processes share; memory in it is not freed. */
static struct {
	pthread_mutex_t lock;
	size_t used;
	struct grant_entry_v1 table[REFS];
	struct page pages[REFS];
	uint32_t nr_refs;
	struct map *maps;
	struct vma *vmas[VMA_BUCKETS];
	uint64_t next_index;
	uint64_t clock_ms;
	struct port ports[PORTS];
	struct node *nodes;
	struct watch *watches;
	bool eventfd_used[EVENTFDS];
} *shared;

static int eventfds[EVENTFDS];
static uint8_t *memory;
static int memfd;

static void lock(void)
{
	pthread_mutex_lock(&shared->lock);
}

static void unlock(void)
{
	pthread_mutex_unlock(&shared->lock);
}

static void *new(size_t size)
{
	void *p = (uint8_t *)shared + shared->used;

	shared->used += (size + 15) & ~15ULL;
	if (shared->used > SHARED_SIZE)
		errx(1, "the shared memory is used up");
	return p;
}

static char *new_string(const char *text, size_t len)
{
	char *copy = new(len + 1);

	memcpy(copy, text, len);
	copy[len] = 0;
	return copy;
}

static int new_eventfd(void)
{
	int i;

	for (i = 0; i < EVENTFDS && shared->eventfd_used[i]; i++)
		;
	if (i == EVENTFDS)
		errx(1, "no eventfd is free");
	shared->eventfd_used[i] = true;
	return eventfds[i];
}

/* An eventfd of ours is not closed, and so stays in an epoll. */
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
	if (!__real_epoll_ctl(epoll, op, fd, event))
		return 0;
	return errno == EEXIST ? __real_epoll_ctl(epoll, EPOLL_CTL_MOD, fd, event) : -1;
}

static void free_eventfd(int fd)
{
	eventfd_t count;
	int i;

	eventfd_read(fd, &count);
	for (i = 0; i < EVENTFDS; i++)
		if (eventfds[i] == fd)
			shared->eventfd_used[i] = false;
}

/* ------------------------------------------------------------- grants */

static struct vma **vma_at(const uint8_t *addr)
{
	return &shared->vmas[(uintptr_t)addr / PAGE % VMA_BUCKETS];
}

static bool granted(uint32_t ref, bool write)
{
	return ref >= FIRST_REF && ref < shared->nr_refs &&
	       !(write && shared->table[ref].flags & GTF_readonly);
}

static void update_flags(uint32_t ref)
{
	uint16_t flags = shared->table[ref].flags & ~(GTF_reading | GTF_writing);

	if (shared->pages[ref].mapped || shared->pages[ref].held)
		flags |= GTF_reading;
	if (shared->pages[ref].writers || shared->pages[ref].held)
		flags |= GTF_writing;
	__atomic_store_n(&shared->table[ref].flags, flags, __ATOMIC_RELEASE);
}

/* What holds unmapped pages releases them. */
static void *clock_thread(void *unused)
{
	struct page *page;
	uint32_t ref;

	for (;;) {
		usleep(1000);
		lock();
		shared->clock_ms++;
		for (ref = FIRST_REF; ref < shared->nr_refs; ref++) {
			page = &shared->pages[ref];
			if (page->held && shared->clock_ms >= page->held) {
				page->held = 0;
				update_flags(ref);
			}
		}
		unlock();
	}
	return unused;
}

static bool is_gntdev(int fd)
{
	struct stat st, of_memfd;

	return !fstat(fd, &st) && !fstat(memfd, &of_memfd) && st.st_dev == of_memfd.st_dev &&
	       st.st_ino == of_memfd.st_ino;
}

int __wrap_open64(const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list args;

	if (!strcmp(path, "/dev/xen/gntdev"))
		return dup(memfd);
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
		map->owner = getpid();
		map->count = op->count;
		map->index = shared->next_index;
		for (i = 0; i < op->count; i++)
			map->refs[i] = (&op->refs[0])[i].ref;
		shared->next_index += (uint64_t)op->count * PAGE;
		map->next = shared->maps;
		shared->maps = map;
		op->index = map->index;
		return 0;
	case IOCTL_GNTDEV_UNMAP_GRANT_REF:
		for (at = &shared->maps; (map = *at); at = &map->next)
			if (map->index == unmap->index && map->count == unmap->count)
				break;
		if (!map)
			errx(1, "UNMAP_GRANT_REF of an offset that is none");
		*at = map->next;
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
	if (!is_gntdev(fd))
		return __real_ioctl(fd, request, arg);
	lock();
	rc = gntdev_ioctl(request, arg);
	unlock();
	return rc;
}

static void *gntdev_mmap(size_t len, int prot, off_t index)
{
	bool write = prot & PROT_WRITE;
	struct map *map;
	struct vma *vma;
	uint8_t *addr;
	uint32_t i;

	for (map = shared->maps; map && map->index != (uint64_t)index; map = map->next)
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
		vma->owner = getpid();
		vma->addr = addr + (size_t)i * PAGE;
		vma->ref = map->refs[i];
		vma->write = write;
		vma->next = *vma_at(vma->addr);
		*vma_at(vma->addr) = vma;
		if (__real_mmap64(vma->addr, PAGE, prot, MAP_SHARED | MAP_FIXED, memfd,
				  (off_t)vma->ref * PAGE) == MAP_FAILED)
			err(1, "mmap");
		shared->pages[vma->ref].mapped++;
		shared->pages[vma->ref].writers += write;
		update_flags(vma->ref);
	}
	return addr;
}

void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *p;

	if (fd < 0 || !is_gntdev(fd))
		return __real_mmap64(addr, len, prot, flags, fd, offset);
	lock();
	p = gntdev_mmap(len, prot, offset);
	unlock();
	return p;
}

static void vma_unmap(struct vma *vma)
{
	struct page *page = &shared->pages[vma->ref];

	page->mapped--;
	page->writers -= vma->write;
	if (!page->mapped && !(rand() & 7))
		page->held = shared->clock_ms + 2;
	update_flags(vma->ref);
}

static void vma_remove(uint8_t *addr)
{
	struct vma **at = vma_at(addr), *vma;

	for (; (vma = *at); at = &vma->next) {
		if (vma->addr == addr && vma->owner == getpid()) {
			*at = vma->next;
			vma_unmap(vma);
			return;
		}
	}
}

int __wrap_munmap(void *addr, size_t len)
{
	size_t at;

	lock();
	for (at = 0; at < len; at += PAGE)
		vma_remove((uint8_t *)addr + at);
	unlock();
	return __real_munmap(addr, len);
}

xengntshr_handle *xengntshr_open(struct xentoollog_logger *logger, unsigned int flags)
{
	(void)logger;
	(void)flags;
	return (void *)shared->table;
}

void *xengntshr_share_pages(xengntshr_handle *shr, uint32_t domid, int count, uint32_t *refs,
			    int writable)
{
	void *addr = memory + (size_t)shared->nr_refs * PAGE;
	int i;

	(void)shr;
	(void)domid;
	for (i = 0; i < count; i++) {
		refs[i] = shared->nr_refs;
		shared->table[shared->nr_refs++].flags =
			GTF_permit_access | (writable ? 0 : GTF_readonly);
	}
	if (shared->nr_refs > REFS)
		errx(1, "too many pages");
	return addr;
}

xenforeignmemory_handle *xenforeignmemory_open(struct xentoollog_logger *logger,
					       unsigned int flags)
{
	(void)logger;
	(void)flags;
	return (void *)shared->table;
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
	*addr = shared->table;
	return (void *)shared->table;
}

int xenforeignmemory_unmap_resource(xenforeignmemory_handle *handle,
				    xenforeignmemory_resource_handle *resource)
{
	(void)handle;
	(void)resource;
	return 0;
}

/* ------------------------------------------------------------- event channels */

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned int flags)
{
	xenevtchn_handle *handle;

	(void)logger;
	(void)flags;
	lock();
	handle = new(sizeof(*handle));
	handle->owner = getpid();
	handle->fd = new_eventfd();
	unlock();
	return handle;
}

int xenevtchn_fd(xenevtchn_handle *handle)
{
	return handle->fd;
}

static int port_new(xenevtchn_handle *handle, int peer)
{
	int i;

	for (i = 1; i < PORTS && shared->ports[i].owner; i++)
		;
	if (i == PORTS)
		errx(1, "no event channel is free");
	shared->ports[i] = (struct port){ .owner = handle, .peer = peer };
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
	lock();
	port = port_new(handle, 0);
	unlock();
	return port;
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *handle, uint32_t domid,
						     evtchn_port_t remote)
{
	int port = -1;

	(void)domid;
	lock();
	if (remote < PORTS && shared->ports[remote].owner && !shared->ports[remote].peer) {
		port = port_new(handle, remote);
		shared->ports[remote].peer = port;
	}
	unlock();
	if (port < 0)
		errno = EINVAL;
	return port;
}

int xenevtchn_notify(xenevtchn_handle *handle, evtchn_port_t port)
{
	struct port *peer;

	(void)handle;
	lock();
	peer = &shared->ports[shared->ports[port].peer];
	if (shared->ports[port].peer && !peer->pending) {
		peer->pending = true;
		port_wake(peer);
	}
	unlock();
	return 0;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *handle)
{
	eventfd_t count;
	int i, port = -1;

	lock();
	for (i = 1; i < PORTS && port < 0; i++) {
		struct port *p = &shared->ports[i];

		if (p->owner == handle && p->pending && !p->masked)
			port = i;
	}
	if (port < 0) {
		eventfd_read(handle->fd, &count);
		errno = EAGAIN;
	} else {
		shared->ports[port].pending = false;
		shared->ports[port].masked = true;
	}
	unlock();
	return port;
}

int xenevtchn_unmask(xenevtchn_handle *handle, evtchn_port_t port)
{
	(void)handle;
	lock();
	shared->ports[port].masked = false;
	port_wake(&shared->ports[port]);
	unlock();
	return 0;
}

static void port_free(struct port *port)
{
	shared->ports[port->peer].peer = 0;
	port->owner = NULL;
}

int xenevtchn_unbind(xenevtchn_handle *handle, evtchn_port_t port)
{
	(void)handle;
	lock();
	port_free(&shared->ports[port]);
	unlock();
	return 0;
}

int xenevtchn_close(xenevtchn_handle *handle)
{
	int i;

	for (i = 1; i < PORTS; i++)
		if (shared->ports[i].owner == handle)
			errx(1, "a handle is closed with a port bound");
	lock();
	free_eventfd(handle->fd);
	unlock();
	return 0;
}

/* ------------------------------------------------------------- xenstore */

#define HOME "/local/domain/0/"

static void full(const char *path, char name[256])
{
	snprintf(name, 256, "%s%s", *path == '/' || *path == '@' ? "" : HOME, path);
}

static bool below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return !strncmp(path, dir, len) && (!path[len] || path[len] == '/');
}

static void fire(struct watch *watch, const char *path)
{
	struct event *event = new(sizeof(*event)), **at = &watch->owner->events;

	path += watch->relative ? strlen(HOME) : 0;
	event->path = new_string(path, strlen(path));
	event->token = watch->token;
	while (*at)
		at = &(*at)->next;
	*at = event;
	eventfd_write(watch->owner->fd, 1);
}

/* Of what is above a node, and, if it was removed, below */
static void changed(const char *path, bool removed)
{
	struct watch *watch;

	for (watch = shared->watches; watch; watch = watch->next)
		if (below(path, watch->path))
			fire(watch, path);
		else if (removed && below(watch->path, path))
			fire(watch, watch->path);
}

static struct node *find(const char *path)
{
	struct node *node;

	for (node = shared->nodes; node && strcmp(node->path, path); node = node->next)
		;
	return node;
}

struct xs_handle *xs_open(unsigned long flags)
{
	struct xs_handle *handle;

	(void)flags;
	lock();
	handle = new(sizeof(*handle));
	handle->owner = getpid();
	handle->fd = new_eventfd();
	unlock();
	return handle;
}

int xs_fileno(struct xs_handle *handle)
{
	return handle->fd;
}

bool xs_watch(struct xs_handle *handle, const char *path, const char *token)
{
	struct watch *watch;
	char name[256];

	full(path, name);
	lock();
	watch = new(sizeof(*watch));
	watch->path = new_string(name, strlen(name));
	watch->token = new_string(token, strlen(token));
	watch->owner = handle;
	watch->relative = *path != '/' && *path != '@';
	watch->next = shared->watches;
	shared->watches = watch;
	fire(watch, watch->path);
	unlock();
	return true;
}

bool xs_unwatch(struct xs_handle *handle, const char *path, const char *token)
{
	struct watch **at, *watch;

	(void)handle;
	lock();
	for (at = &shared->watches; (watch = *at); at = &watch->next) {
		if (!strcmp(watch->path, path) && !strcmp(watch->token, token)) {
			*at = watch->next;
			break;
		}
	}
	unlock();
	return true;
}

char **xs_check_watch(struct xs_handle *handle)
{
	struct event *event;
	eventfd_t count;
	char **vec = NULL;
	size_t len;

	lock();
	event = handle->events;
	if (event) {
		handle->events = event->next;
		len = strlen(event->path) + 1;
		vec = calloc(1, 2 * sizeof(*vec) + len + strlen(event->token) + 1);
		vec[XS_WATCH_PATH] = strcpy((char *)(vec + 2), event->path);
		vec[XS_WATCH_TOKEN] = strcpy((char *)(vec + 2) + len, event->token);
	} else {
		eventfd_read(handle->fd, &count);
	}
	unlock();
	if (!vec)
		errno = EAGAIN;
	return vec;
}

void *xs_read(struct xs_handle *handle, xs_transaction_t t, const char *path, unsigned int *len)
{
	char name[256], *value = NULL;
	struct node *node;

	(void)handle;
	(void)t;
	full(path, name);
	lock();
	node = find(name);
	if (node) {
		value = strdup(node->value);
		*len = strlen(value);
	}
	unlock();
	return value;
}

bool xs_write(struct xs_handle *handle, xs_transaction_t t, const char *path, const void *data,
	      unsigned int len)
{
	struct node *node;
	char name[256];

	(void)handle;
	(void)t;
	full(path, name);
	lock();
	node = find(name);
	if (!node) {
		node = new(sizeof(*node));
		node->path = new_string(name, strlen(name));
		node->next = shared->nodes;
		shared->nodes = node;
	}
	node->value = new_string(data, len);
	changed(name, false);
	unlock();
	return true;
}

bool xs_mkdir(struct xs_handle *handle, xs_transaction_t t, const char *path)
{
	return xs_write(handle, t, path, "", 0);
}

bool xs_rm(struct xs_handle *handle, xs_transaction_t t, const char *path)
{
	struct node **at, *node;
	char name[256];

	(void)handle;
	(void)t;
	full(path, name);
	lock();
	for (at = &shared->nodes; (node = *at); ) {
		if (!below(node->path, name)) {
			at = &node->next;
			continue;
		}
		*at = node->next;
	}
	changed(name, true);
	unlock();
	return true;
}

/* The daemon only asks for what is below its class: here there is one device. */
char **xs_directory(struct xs_handle *handle, xs_transaction_t t, const char *path,
		    unsigned int *num)
{
	char **list = calloc(1, sizeof(*list) + 2);

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

/* The kernel may transfer less than it was asked to. */
void __wrap_request_end(struct request *req, int64_t result)
{
	if (req->bytes && result > SECTOR && !(rand() & 15))
		result -= rand() % (result / SECTOR) * SECTOR;
	__real_request_end(req, result);
}

/* The daemon may be killed between any two stores that need this order. */
void xen_wmb(void)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
	if (!(rand() & 63))
		usleep(1000);
}

/* Fails where the kernel's own checks would hide that the daemon's are missing. */
void __wrap_io_queue(struct request *req)
{
	uint64_t size = req->dev->sectors * SECTOR;
	uint64_t length = req->op == BLKIF_OP_DISCARD ? req->length : req->bytes;

	if (req->op != BLKIF_OP_FLUSH_DISKCACHE &&
	    (req->offset > size || length > size - req->offset ||
	     (req->op != BLKIF_OP_READ && req->dev->readonly)))
		errx(1, "operation %u at %llu of the disk gets to the engine", req->op,
		     (unsigned long long)req->offset);
	__real_io_queue(req);
}

static bool still_mapped_here(uint32_t ref)
{
	return __atomic_load_n(&shared->table[ref].flags, __ATOMIC_ACQUIRE) &
	       (GTF_reading | GTF_writing);
}

static void set_node(const char *path, const char *value)
{
	xs_write(NULL, XBT_NULL, path, value, strlen(value));
}

static pid_t daemon_start(int argc, char **argv)
{
	pid_t pid = fork();

	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(daemon_main(argc, argv));
	}
	return pid;
}

/* What the kernel and xenstored do when a process dies */
static void daemon_is_gone(pid_t pid)
{
	struct watch **watch;
	struct map **map;
	struct vma **vma;
	int i;

	for (map = &shared->maps; *map; ) {
		if ((*map)->owner == pid)
			*map = (*map)->next;
		else
			map = &(*map)->next;
	}
	for (i = 0; i < VMA_BUCKETS; i++) {
		for (vma = &shared->vmas[i]; *vma; ) {
			if ((*vma)->owner == pid) {
				vma_unmap(*vma);
				*vma = (*vma)->next;
			} else {
				vma = &(*vma)->next;
			}
		}
	}
	for (i = 1; i < PORTS; i++) {
		if (shared->ports[i].owner && shared->ports[i].owner->owner == pid) {
			free_eventfd(shared->ports[i].owner->fd);
			port_free(&shared->ports[i]);
		}
	}
	for (watch = &shared->watches; *watch; ) {
		if ((*watch)->owner->owner == pid) {
			free_eventfd((*watch)->owner->fd);
			*watch = (*watch)->next;
		} else {
			watch = &(*watch)->next;
		}
	}
}

struct killer {
	unsigned long every_ms;
	int argc;
	char **argv;
	pid_t pid;
	unsigned long kills;
	volatile bool stop;
	volatile bool stopped;
};

/* Whether the daemon has bound an event channel, if it is to be connected */
static bool is_up(pid_t pid)
{
	struct node *state;
	bool up = false;
	int i;

	lock();
	state = find(BACK "/state");
	for (i = 1; i < PORTS; i++)
		up |= shared->ports[i].owner && shared->ports[i].owner->owner == pid;
	up |= state && strcmp(state->value, "4");
	unlock();
	return up;
}

static void *killer_thread(void *arg)
{
	struct killer *killer = arg;
	int i, status;

	while (!killer->stop) {
		/* Most often it gets so far, however busy this machine is. */
		for (i = 0; i < 2000 && rand() & 1023 && !is_up(killer->pid); i++)
			usleep(1000);
		usleep((1 + rand() % (2 * killer->every_ms)) * 1000);
		if (rand() & 3) {
			/* It does not die in the middle of what stands for a system call. */
			lock();
			kill(killer->pid, SIGKILL);
			if (waitpid(killer->pid, &status, 0) != killer->pid ||
			    !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
				errx(1, "the daemon ended with status %x", status);
			killer->kills++;
		} else {
			kill(killer->pid, SIGTERM);
			if (waitpid(killer->pid, &status, 0) != killer->pid || status)
				errx(1, "the daemon ended with status %x", status);
			lock();
		}
		daemon_is_gone(killer->pid);
		unlock();
		killer->pid = daemon_start(killer->argc, killer->argv);
	}
	killer->stopped = true;
	/* The daemon dies with the thread that started it. */
	for (;;)
		pause();
	return NULL;
}

static void set_up(const char *file, const char *mode)
{
	pthread_mutexattr_t attr;
	int i;

	shared = __real_mmap64(NULL, SHARED_SIZE, PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	memfd = memfd_create("pages", 0);
	if (shared == MAP_FAILED || memfd < 0 || ftruncate(memfd, (off_t)REFS * PAGE))
		err(1, "memory");
	memory = __real_mmap64(NULL, (size_t)REFS * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd,
			       0);
	if (memory == MAP_FAILED)
		err(1, "memory");
	shared->used = sizeof(*shared);
	shared->nr_refs = FIRST_REF;
	shared->next_index = PAGE;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&shared->lock, &attr);
	for (i = 0; i < EVENTFDS; i++)
		eventfds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	set_node(FRONT "/state", "1");
	set_node(BACK "/frontend", FRONT);
	set_node(BACK "/params", file);
	set_node(BACK "/mode", mode);
	set_node(BACK "/online", "1");
	set_node(BACK "/state", "1");
}

int main(int argc, char **argv)
{
	struct killer killer = { .argc = argc - 5, .argv = argv + 5 };
	char *fuzz[6] = { argv[0] };
	pthread_t thread, clock;
	int i, fd, status = 0;
	sigset_t set;
	uint32_t ref;

	if (argc < 6)
		errx(2, "usage: fake-xen FILE r|w SESSIONS SEED KILLS [OPTION OF grant-blkd]...");
	killer.every_ms = strtoul(argv[5], NULL, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	set_up(argv[1], argv[2]);
	/* As I/O of a dead daemon holds it */
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (flock(fd, LOCK_SH))
		err(1, "%s", argv[1]);
	killer.pid = daemon_start(killer.argc, killer.argv);
	usleep(500000);
	if (strcmp(find(BACK "/state")->value, "1"))
		errx(1, "the daemon does not wait for the lock on the image");
	flock(fd, LOCK_UN);
	if (pthread_create(&clock, NULL, clock_thread, NULL) ||
	    (killer.every_ms && pthread_create(&thread, NULL, killer_thread, &killer)))
		errx(1, "thread");

	still_mapped = still_mapped_here;
	fuzz[1] = BACK;
	fuzz[2] = FRONT;
	fuzz[3] = argv[3];
	fuzz[4] = argv[4];
	if (fuzz_main(5, fuzz))
		return 1;

	if (killer.every_ms) {
		killer.stop = true;
		while (!killer.stopped)
			usleep(1000);
		printf("%lu kills\n", killer.kills);
	}
	set_node(BACK "/online", "0");
	set_node(FRONT "/state", "6");
	for (i = 0; find(BACK "/state"); i++) {
		if (i == 1000)
			errx(1, "the device is not removed");
		usleep(10000);
	}
	kill(killer.pid, SIGTERM);
	if (waitpid(killer.pid, &status, 0) != killer.pid || status)
		errx(1, "the daemon ended with status %x", status);
	for (ref = FIRST_REF; ref < shared->nr_refs; ref++)
		if (shared->pages[ref].mapped)
			errx(1, "reference %u is still mapped", ref);
	if (shared->maps)
		errx(1, "an offset of gntdev is left");
	return 0;
}
