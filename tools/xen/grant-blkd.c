// SPDX-License-Identifier: GPL-2.0-only
/*
 * grant-blkd: serves disks to Xen guests from user space, with I/O straight on the
 * pages that the guests granted. See grant-blkd.8.
 *
 *	grant-blkd.c	xenstore, the life of a device, the event loop, the command line
 *	ring.c		the block protocol
 *	grants.c	the guest's pages: mapped, kept mapped, or copied
 *	io.c		io_uring and libaio
 *
 * One process and one thread serve all devices. A device is
 *
 *	backend/gblk/DOMID/DEVID	ours in xenstore. blkback does not take it, as it is
 *					not of the class "vbd"
 *	/local/domain/DOMID/device/vbd/DEVID
 *					the frontend's, as blkfront knows it
 *	/run/grant-blkd/DOMID-DEVID	its requests in flight, see struct inflight
 *
 * If the daemon dies, the kernel unmaps all pages, and the frontend stays connected, as
 * the states in xenstore do not change. The next daemon binds the same event channels,
 * maps the same rings and repeats the requests that had no response. It first waits for
 * the dead daemon's I/O to end: until then that I/O refers to the open file, which holds
 * a lock on the image.
 */
#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>
#include <xenstore.h>
#include "blkd.h"
#include <xen/io/protocols.h>
#include <xen/io/xenbus.h>

#ifndef RUN
#define RUN		"/run/grant-blkd"
#endif
#define CLASS		"backend/gblk"
#define PATH_SIZE	256
#define RETRY_MS	100

bool use_libaio;
bool stopping;
uint32_t max_persistent = 1056;		/* as blkback */
static enum data_mode mode = DATA_PERSIST;
static const char *json_file;

static LIST_HEAD(, device) devices = LIST_HEAD_INITIALIZER(devices);
static struct xs_handle *xs;
static int epoll;
static uint64_t retry_at;		/* ms; a device waits for something without an event */

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ULL + now.tv_nsec / 1000000;
}

/* A guest can cause many lines. Of a device 10 are printed at once, then one in 10 s. */
void say(struct device *dev, const char *format, ...)
{
	uint64_t now = now_ms();
	va_list args;

	if (dev) {
		if (dev->quiet_until < now)
			dev->quiet_until = now;
		if (dev->quiet_until - now > 9 * 10000) {
			dev->unsaid++;
			return;
		}
		dev->quiet_until += 10000;
		fprintf(stderr, "%u/%u: ", dev->domid, dev->id);
		if (dev->unsaid)
			fprintf(stderr, "(%u lines left out) ", dev->unsaid);
		dev->unsaid = 0;
	}
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

/* ------------------------------------------------------------- xenstore */

/* The value of DIR/NAME, or NULL. In the end it is freed. */
static char *store_read(const char *dir, const char *name)
{
	char path[2 * PATH_SIZE];
	unsigned int len;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return xs_read(xs, XBT_NULL, path, &len);
}

/* A number below 2^32, -1 if there is none, -2 if it is something else */
static int64_t store_number(const char *dir, const char *name)
{
	char *text = store_read(dir, name), *end;
	int64_t value = text ? -2 : -1;

	if (text && isdigit(*text)) {
		value = strtoll(text, &end, 10);
		if (*end || value > UINT32_MAX)
			value = -2;
	}
	free(text);
	return value;
}

static bool store_write(xs_transaction_t t, const char *dir, const char *name,
			const char *format, ...)
{
	char path[2 * PATH_SIZE], text[4 * PATH_SIZE];
	va_list args;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return xs_write(xs, t, path, text, strlen(text));
}

static void set_state(struct device *dev, enum xenbus_state state)
{
	store_write(XBT_NULL, dev->path, "state", "%d", state);
}

/* Writes only what is new: each write is an event that makes us try again. */
static int fail(struct device *dev, int error, const char *what)
{
	char *old = store_read(dev->path, "error"), text[PATH_SIZE];

	snprintf(text, sizeof(text), "%s: %s", what, strerror(-error));
	if (!old || strcmp(old, text)) {
		say(dev, "%s", text);
		store_write(XBT_NULL, dev->path, "error", "%s", text);
	}
	free(old);
	return error;
}

/* ------------------------------------------------------------- the backing store */

/* The smallest sector that O_DIRECT takes, in the file and in memory */
static int probe_sector_size(struct device *dev)
{
	static uint8_t buf[2 * PAGE] __attribute__((aligned(PAGE)));
	uint32_t size;

	for (size = SECTOR; size <= PAGE; size *= 2) {
		if (pread(dev->fd, buf + size, size, 0) >= 0) {
			dev->sector_size = size;
			return 0;
		}
		if (errno != EINVAL)
			break;
	}
	return -errno;
}

static uint64_t queue_limit(dev_t dev, const char *name)
{
	unsigned long long value = 0;
	char path[PATH_SIZE];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/queue/%s", major(dev), minor(dev), name);
	file = fopen(path, "r");
	if (file) {
		if (fscanf(file, "%llu", &value) != 1)
			value = 0;
		fclose(file);
	}
	return value;
}

/* Whether holes can be punched: for a file tried out beyond its end */
static void probe_discard(struct device *dev, const struct stat *st)
{
	char *enable = store_read(dev->path, "discard-enable");

	dev->granularity = dev->sector_size;
	if (dev->readonly || (enable && !strcmp(enable, "0"))) {
		dev->discard = false;
	} else if (dev->block) {
		dev->discard = queue_limit(st->st_rdev, "write_zeroes_max_bytes") &&
			       queue_limit(st->st_rdev, "discard_max_bytes");
		if (dev->discard)
			dev->granularity = queue_limit(st->st_rdev, "discard_granularity");
	} else {
		dev->discard = !fallocate(dev->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					  st->st_size, PAGE);
		if (dev->discard)
			dev->granularity = st->st_blksize;
	}
	free(enable);
}

/*
 * Readers share the lock. But each disk first needs the exclusive one, which cannot be
 * taken while I/O of a dead daemon is in flight: after the response to a repeated
 * request, that I/O would still store into a page that the guest uses for other things.
 */
static int backing_lock(struct device *dev, const struct stat *st)
{
	struct device *other;

	dev->st_dev = st->st_dev;
	dev->st_ino = st->st_ino;
	LIST_FOREACH(other, &devices, list)
		if (dev->readonly && other != dev && other->fd >= 0 &&
		    other->st_dev == st->st_dev && other->st_ino == st->st_ino)
			return flock(dev->fd, LOCK_SH | LOCK_NB) ? -EAGAIN : 0;
	if (flock(dev->fd, LOCK_EX | LOCK_NB))
		return -EAGAIN;
	if (dev->readonly)
		flock(dev->fd, LOCK_SH);
	return 0;
}

/* -EAGAIN: try again later */
static int backing_open(struct device *dev)
{
	char *file = store_read(dev->path, "params"), *mode_text = store_read(dev->path, "mode");
	uint64_t size;
	struct stat st;
	int rc;

	dev->readonly = !mode_text || *mode_text != 'w';
	free(mode_text);
	dev->fd = open(file ?: "", (dev->readonly ? O_RDONLY : O_RDWR) | O_DIRECT | O_CLOEXEC);
	if (dev->fd < 0) {
		rc = fail(dev, -errno, file ?: "params");
		goto out;
	}
	rc = fstat(dev->fd, &st) ? -errno : backing_lock(dev, &st);
	if (rc)
		goto out;
	dev->block = S_ISBLK(st.st_mode);
	if (dev->block)
		rc = ioctl(dev->fd, BLKGETSIZE64, &size);
	else
		size = st.st_size;
	rc = rc ? -errno : probe_sector_size(dev);
	if (rc) {
		fail(dev, rc, file);
		goto out;
	}
	dev->sectors = size / dev->sector_size * (dev->sector_size / SECTOR);
	probe_discard(dev, &st);
out:
	if (rc && dev->fd >= 0) {
		close(dev->fd);
		dev->fd = -1;
	}
	free(file);
	return rc;
}

/* What the frontend may know before it connects */
static bool publish(struct device *dev)
{
	const struct {
		const char *name;
		uint64_t value;
	} *node, nodes[] = {
		{ "max-ring-page-order", MAX_RING_ORDER },
		{ "max-ring-pages", MAX_RING_PAGES },
		{ "multi-queue-max-queues", MAX_QUEUES },
		{ "feature-persistent", mode == DATA_PERSIST },
		{ "feature-max-indirect-segments", MAX_SEGMENTS },
		{ "feature-flush-cache", 1 },
		{ "feature-barrier", 0 },
		{ "feature-discard", dev->discard },
		{ "discard-granularity", dev->granularity },
		{ "discard-alignment", 0 },
		{ "discard-secure", 0 },
		{ "sector-size", dev->sector_size },
		{ "physical-sector-size", dev->sector_size },
		{ "sectors", dev->sectors },
		{ "info", dev->readonly ? VDISK_READONLY : 0 },
		{ NULL },
	};
	bool done = true;

	for (node = nodes; node->name; node++)
		done &= store_write(XBT_NULL, dev->path, node->name, "%llu",
				    (unsigned long long)node->value);
	return done;
}

/* ------------------------------------------------------------- connecting */

static void watch_fd(int fd, struct device *dev, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = dev };

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		err(1, "epoll_ctl");
}

static void inflight_path(const struct device *dev, char path[PATH_SIZE])
{
	snprintf(path, PATH_SIZE, RUN "/%u-%u", dev->domid, dev->id);
}

static int inflight_open(struct device *dev)
{
	char path[PATH_SIZE];
	int fd, rc = 0;

	inflight_path(dev, path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, sizeof(*dev->saved)))
		dev->saved = mmap(NULL, sizeof(*dev->saved), PROT_READ | PROT_WRITE, MAP_SHARED,
				  fd, 0);
	if (!dev->saved || dev->saved == MAP_FAILED) {
		dev->saved = NULL;
		rc = -errno;
	}
	close(fd);
	return rc;
}

/* Reads what the frontend says of its rings into @now. */
static int read_rings(struct device *dev, struct inflight_file *now)
{
	int64_t queues = store_number(dev->front, "multi-queue-num-queues");
	int64_t order = store_number(dev->front, "ring-page-order"), port, ref;
	char *protocol = store_read(dev->front, "protocol");
	char dir[PATH_SIZE], name[32];
	uint32_t i, page;
	bool native;

	native = !protocol || !strcmp(protocol, XEN_IO_PROTO_ABI_NATIVE);
	free(protocol);
	if (queues == -1)
		queues = 1;
	if (order == -1)
		order = 0;
	if (!native || queues < 1 || queues > MAX_QUEUES || order < 0 || order > MAX_RING_ORDER)
		return -EINVAL;
	now->queues = queues;
	now->order = order;
	for (i = 0; i < now->queues; i++) {
		if (now->queues == 1)
			snprintf(dir, sizeof(dir), "%s", dev->front);
		else
			snprintf(dir, sizeof(dir), "%s/queue-%u", dev->front, i);
		port = store_number(dir, "event-channel");
		if (port < 0)
			return -EINVAL;
		now->ports[i] = port;
		for (page = 0; page < 1u << now->order; page++) {
			snprintf(name, sizeof(name), "ring-ref%u", page);
			ref = store_number(dir, order ? name : "ring-ref");
			if (ref < 0)
				return -EINVAL;
			now->refs[i][page] = ref;
		}
	}
	return 0;
}

static int open_rings(struct device *dev)
{
	uint32_t i, pages = 1u << dev->saved->order;
	struct ring *ring;
	int port;

	for (i = 0; i < dev->nr_rings; i++) {
		ring = dev->rings + i;
		ring->dev = dev;
		ring->back.sring = grants_map(dev, &ring->map, dev->saved->refs[i], pages, true);
		if (!ring->back.sring)
			return fail(dev, -EFAULT, "mapping a ring");
		ring->back.nr_ents = __RING_SIZE(ring->back.sring, pages * PAGE);
		port = xenevtchn_bind_interdomain(dev->evtchn, dev->domid, dev->saved->ports[i]);
		if (port < 0)
			return fail(dev, -errno, "binding an event channel");
		ring->port = port;
		ring->bound = true;
	}
	return 0;
}

/* No request is in flight. */
static void disconnect(struct device *dev)
{
	struct ring *ring;

	io_close(dev);
	grants_close(dev);
	for (ring = dev->rings; ring < dev->rings + MAX_QUEUES; ring++) {
		if (ring->bound)
			xenevtchn_unbind(dev->evtchn, ring->port);
		if (ring->back.sring)
			grants_unmap(dev, &ring->map, ring->back.sring, ring->map.pages);
		memset(ring, 0, sizeof(*ring));
	}
	if (dev->evtchn)
		xenevtchn_close(dev->evtchn);
	dev->evtchn = NULL;
	if (dev->gntdev >= 0)
		close(dev->gntdev);
	dev->gntdev = -1;
	if (dev->saved)
		munmap(dev->saved, sizeof(*dev->saved));
	dev->saved = NULL;
	free(dev->requests);
	dev->requests = NULL;
	dev->nr_rings = 0;
	dev->connected = false;
	dev->closing = false;
	dev->broken = false;
	dev->ready = false;
}

/* @again: the frontend is connected, to a daemon that has died. */
static int connect_rings(struct device *dev, bool again)
{
	struct inflight_file now = { 0 };
	const size_t head = offsetof(struct inflight_file, slots);
	int rc = read_rings(dev, &now);

	if (!rc)
		rc = inflight_open(dev);
	if (rc)
		return fail(dev, rc, "the frontend's rings");
	if (!again || memcmp(dev->saved, &now, head)) {
		if (again)
			say(dev, "what was in flight is not known");
		*dev->saved = now;
	}

	dev->data = mode;
	/* The daemon that the frontend connected to may have been of another mode. */
	dev->persistent = mode == DATA_PERSIST &&
			  store_number(dev->path, "feature-persistent") == 1 &&
			  store_number(dev->front, "feature-persistent") == 1;
	dev->nr_rings = now.queues;
	dev->requests = calloc(MAX_REQUESTS, sizeof(*dev->requests));
	dev->evtchn = xenevtchn_open(NULL, 0);
	dev->gntdev = open("/dev/xen/gntdev", O_RDWR | O_CLOEXEC);
	if (!dev->requests || !dev->evtchn || dev->gntdev < 0)
		return fail(dev, -errno, "/dev/xen");
	rc = open_rings(dev);
	if (rc)
		return rc;
	rc = grants_open(dev, now.refs[0][0]);
	if (rc)
		return fail(dev, rc, "memory");
	rc = io_open(dev);
	if (rc)
		return fail(dev, rc, use_libaio ? "libaio" : "io_uring");
	rc = rings_attach(dev);
	if (rc)
		return fail(dev, rc, "the rings");

	fcntl(xenevtchn_fd(dev->evtchn), F_SETFL, O_NONBLOCK);
	watch_fd(xenevtchn_fd(dev->evtchn), dev, EPOLLIN);
	watch_fd(io_fd(dev), dev, EPOLLIN | EPOLLET);
	dev->connected = true;
	dev->ready = true;
	dev->stats[STAT_CONNECTS]++;
	say(dev, "%sconnected: %u rings of %u pages, %s, %u requests repeated",
	    again ? "re" : "", dev->nr_rings, 1u << now.order,
	    dev->persistent ? "persistent grants" : dev->data == DATA_COPY ? "copying" :
	    dev->data == DATA_REGISTER ? "registering" : "mapping",
	    MAX_REQUESTS - dev->nr_free);
	return 0;
}

static void device_connect(struct device *dev, bool again)
{
	if (connect_rings(dev, again)) {
		set_state(dev, XenbusStateClosing);
		disconnect(dev);
	} else if (!again) {
		set_state(dev, XenbusStateConnected);
	}
}

/* ------------------------------------------------------------- the life of a device */

static struct device *device_get(uint32_t domid, uint32_t id)
{
	char path[PATH_SIZE], token[32];
	struct device *dev;

	LIST_FOREACH(dev, &devices, list)
		if (dev->domid == domid && dev->id == id)
			return dev;
	snprintf(path, sizeof(path), CLASS "/%u/%u", domid, id);
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		err(1, "memory");
	dev->domid = domid;
	dev->id = id;
	dev->fd = -1;
	dev->gntdev = -1;
	dev->uring.ring_fd = -1;
	dev->eventfd = -1;
	dev->path = strdup(path);
	dev->front = store_read(path, "frontend");
	if (!dev->path || !dev->front) {
		/* It is being made, or removed. */
		free(dev->path);
		free(dev);
		return NULL;
	}
	LIST_INSERT_HEAD(&devices, dev, list);
	snprintf(path, sizeof(path), "%s/state", dev->front);
	snprintf(token, sizeof(token), "%u/%u", domid, id);
	xs_watch(xs, path, token);
	return dev;
}

/* It is not connected. */
static void device_remove(struct device *dev)
{
	char path[PATH_SIZE], token[32];

	say(dev, "removed");
	snprintf(path, sizeof(path), "%s/state", dev->front);
	snprintf(token, sizeof(token), "%u/%u", dev->domid, dev->id);
	xs_unwatch(xs, path, token);
	xs_rm(xs, XBT_NULL, dev->path);
	inflight_path(dev, path);
	unlink(path);
	if (dev->fd >= 0)
		close(dev->fd);
	LIST_REMOVE(dev, list);
	free(dev->path);
	free(dev->front);
	free(dev);
}

/* A request that waits for its grants has no I/O in flight. */
static bool idle(const struct device *dev)
{
	return !dev->connected || dev->nr_free + dev->nr_waiting == MAX_REQUESTS;
}

/*
 * Acts on the states of both ends, whatever has changed. Nothing is torn down before
 * the last I/O has ended: its end comes back here.
 */
static void device_changed(struct device *dev)
{
	int64_t front = store_number(dev->front, "state");
	int64_t back = store_number(dev->path, "state");
	bool online = store_number(dev->path, "online") == 1;
	bool gone = front < 0 || back < 0;
	int rc;

	if (gone || front == XenbusStateClosing || front == XenbusStateClosed)
		dev->closing = dev->connected;
	if (dev->closing) {
		if (!idle(dev))
			return;
		disconnect(dev);
	}
	if (gone || (!online && (front == XenbusStateClosed || front == XenbusStateInitialising))) {
		device_remove(dev);
		return;
	}
	if (stopping || dev->connected)
		return;
	if (front == XenbusStateClosing || front == XenbusStateClosed) {
		if (back != front)
			set_state(dev, front);
		return;
	}
	if (back >= XenbusStateClosing && front != XenbusStateInitialising)
		return;

	if (dev->fd < 0) {
		rc = backing_open(dev);
		if (rc == -EAGAIN)
			retry_at = now_ms() + RETRY_MS;
		if (rc)
			return;
	}
	if (back == XenbusStateInitialising || back >= XenbusStateClosing) {
		if (publish(dev))
			set_state(dev, XenbusStateInitWait);
	} else if (front == XenbusStateInitialised || front == XenbusStateConnected) {
		device_connect(dev, back == XenbusStateConnected);
	}
}

/* All devices that xenstore knows */
static void scan(void)
{
	char **domains, **ids, path[PATH_SIZE];
	unsigned int nr_domains, nr_ids, i, k;

	domains = xs_directory(xs, XBT_NULL, CLASS, &nr_domains);
	for (i = 0; domains && i < nr_domains; i++) {
		snprintf(path, sizeof(path), CLASS "/%s", domains[i]);
		ids = xs_directory(xs, XBT_NULL, path, &nr_ids);
		for (k = 0; ids && k < nr_ids; k++)
			device_get(atoi(domains[i]), atoi(ids[k]));
		free(ids);
	}
	free(domains);
}

static void all_changed(void)
{
	struct device *dev, *next;

	for (dev = LIST_FIRST(&devices); dev; dev = next) {
		next = LIST_NEXT(dev, list);
		device_changed(dev);
	}
}

static void store_event(void)
{
	unsigned int domid, id;
	struct device *dev;
	char **event;

	while ((event = xs_check_watch(xs))) {
		if (sscanf(event[XS_WATCH_TOKEN], "%u/%u", &domid, &id) == 2 ||
		    sscanf(event[XS_WATCH_PATH], CLASS "/%u/%u", &domid, &id) == 2) {
			dev = device_get(domid, id);
			if (dev)
				device_changed(dev);
		} else {
			scan();
			all_changed();
		}
		free(event);
	}
}

/* ------------------------------------------------------------- statistics */

static const char * const statistic_names[NR_STATISTICS] = {
	[STAT_READS] = "reads",
	[STAT_WRITES] = "writes",
	[STAT_FLUSHES] = "flushes",
	[STAT_DISCARDS] = "discards",
	[STAT_READ_SECTORS] = "read_sectors",
	[STAT_WRITE_SECTORS] = "write_sectors",
	[STAT_FAILED] = "failed",
	[STAT_BAD] = "bad",
	[STAT_INDIRECT] = "indirect",
	[STAT_EVENTS] = "events",
	[STAT_NOTIFICATIONS] = "notifications",
	[STAT_SUBMISSIONS] = "submissions",
	[STAT_MAP_CALLS] = "map_calls",
	[STAT_PAGES_MAPPED] = "pages_mapped",
	[STAT_PAGES_FOUND] = "pages_found",
	[STAT_PAGES_EVICTED] = "pages_evicted",
	[STAT_PAGES_COPIED] = "pages_copied",
	[STAT_LATE_RELEASES] = "late_releases",
	[STAT_SHORT_TRANSFERS] = "short_transfers",
	[STAT_REPEATED] = "repeated",
	[STAT_CONNECTS] = "connects",
};

static void print_statistics(FILE *file, bool json)
{
	const char *separator = "";
	struct device *dev;
	int i;

	if (json)
		fputs("[", file);
	LIST_FOREACH(dev, &devices, list) {
		fprintf(file, json ? "%s\n{\"domid\": %u, \"device\": %u" : "%s%u/%u:", separator,
			dev->domid, dev->id);
		fprintf(file, json ? ", \"connected\": %s, \"in_flight\": %u, \"mapped\": %u" :
			" connected %s, in_flight %u, mapped %u", dev->connected ? "true" : "false",
			dev->connected ? MAX_REQUESTS - dev->nr_free : 0, dev->nr_grants);
		for (i = 0; i < NR_STATISTICS; i++)
			fprintf(file, json ? ", \"%s\": %llu" : ", %s %llu", statistic_names[i],
				(unsigned long long)dev->stats[i]);
		fputs(json ? "}" : "\n", file);
		separator = json ? "," : "";
	}
	if (json)
		fputs("\n]\n", file);
}

static void statistics(void)
{
	char path[PATH_SIZE];
	FILE *file;

	print_statistics(stderr, false);
	if (!json_file)
		return;
	snprintf(path, sizeof(path), "%s.new", json_file);
	file = fopen(path, "w");
	if (!file) {
		say(NULL, "%s: %s", path, strerror(errno));
		return;
	}
	print_statistics(file, true);
	if (fclose(file) || rename(path, json_file))
		say(NULL, "%s: %s", json_file, strerror(errno));
}

/* ------------------------------------------------------------- the event loop */

static void device_work(struct device *dev)
{
	uint32_t i;
	int port;

	/*
	 * Unmasked first, so that what comes from now on is an event again. One for each
	 * ring at most: epoll tells of more, without a call that finds none.
	 */
	for (i = 0; i < dev->nr_rings && (port = xenevtchn_pending(dev->evtchn)) >= 0; i++) {
		xenevtchn_unmask(dev->evtchn, port);
		dev->stats[STAT_EVENTS]++;
	}
	rings_work(dev);
	if (dev->broken)
		set_state(dev, XenbusStateClosing);
	dev->broken = false;
	if (dev->closing)
		device_changed(dev);
}

static bool all_idle(void)
{
	struct device *dev;

	LIST_FOREACH(dev, &devices, list)
		if (!idle(dev))
			return false;
	return true;
}

static void signal_event(int fd)
{
	struct signalfd_siginfo info;

	if (read(fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGUSR1)
		statistics();
	else
		stopping = true;
}

/* How long to wait for the next event: until there is one, if no device needs a look */
static int wait_ms(void)
{
	int ms = retry_at ? RETRY_MS : -1;
	struct device *dev;

	LIST_FOREACH(dev, &devices, list) {
		if (dev->ready)
			return 0;
		if (dev->nr_waiting)
			ms = 1;
	}
	return ms;
}

/*
 * On SIGTERM what is in flight is finished. The frontends stay connected, and wait for
 * the next daemon.
 */
static void serve(int signal_fd)
{
	struct epoll_event events[64];
	struct device *dev, *next;
	bool store, signalled;
	int i, n;

	watch_fd(signal_fd, NULL, EPOLLIN);
	watch_fd(xs_fileno(xs), (void *)&xs, EPOLLIN);
	while (!stopping || !all_idle()) {
		store = false;
		signalled = false;
		n = epoll_wait(epoll, events, 64, wait_ms());
		for (i = 0; i < n; i++) {
			if (!events[i].data.ptr)
				signalled = true;
			else if (events[i].data.ptr == &xs)
				store = true;
			else
				((struct device *)events[i].data.ptr)->ready = true;
		}
		/* Without an event: io_uring interrupts us, or one of them only waits. */
		LIST_FOREACH(dev, &devices, list)
			dev->ready = dev->connected && (dev->ready || n <= 0);
		for (dev = LIST_FIRST(&devices); dev; dev = next) {
			next = LIST_NEXT(dev, list);
			if (dev->ready)
				device_work(dev);
		}
		if (signalled)
			signal_event(signal_fd);
		if (store)
			store_event();
		if (retry_at && now_ms() >= retry_at) {
			retry_at = 0;
			all_changed();
		}
	}
}

static int run(void)
{
	sigset_t set;
	int fd;

	if (mkdir(RUN, 0700) && errno != EEXIST)
		err(1, RUN);
	fd = open(RUN "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB))
		errx(1, "%s is locked: another grant-blkd runs", RUN "/lock");

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (epoll < 0 || fd < 0)
		err(1, "epoll, signalfd");
	if (!xs_watch(xs, CLASS, "class") || !xs_watch(xs, "@releaseDomain", "release"))
		err(1, "xenstore: watch");
	serve(fd);
	statistics();
	return 0;
}

/* ------------------------------------------------------------- attach, detach */

/* A number, or xvda to xvdz as blkfront numbers them */
static uint32_t device_id(const char *name)
{
	unsigned long id;
	char *end;
	int n;

	if (!strncmp(name, "xvd", 3) && islower(name[3]) && !name[4]) {
		n = name[3] - 'a';
		return n < 16 ? 202 << 8 | n << 4 : 1 << 28 | n << 8;
	}
	id = strtoul(name, &end, 0);
	if (!isdigit(*name) || *end || id > UINT32_MAX)
		errx(2, "%s is neither xvda to xvdz nor a number", name);
	return id;
}

/* A directory of @owner, which @reader may read */
static void make_dir(xs_transaction_t t, const char *path, uint32_t owner, uint32_t reader)
{
	struct xs_permissions perms[] = {
		{ .id = owner, .perms = XS_PERM_NONE },
		{ .id = reader, .perms = XS_PERM_READ },
	};

	xs_rm(xs, t, path);
	if (!xs_mkdir(xs, t, path) || !xs_set_permissions(xs, t, path, perms, 2))
		err(1, "xenstore: %s", path);
}

static void wait_for_daemon(const char *path, enum xenbus_state state)
{
	int64_t now = 0;
	char *error;
	int i;

	for (i = 0; i < 100; i++) {
		usleep(100000);
		now = store_number(path, "state");
		error = state ? store_read(path, "error") : NULL;
		if (error)
			errx(1, "%s", error);
		if (now < 0 || (state && now >= state))
			return;
	}
	errx(1, "no answer after 10 s (state %d): is grant-blkd running, and the disk not in use?",
	     (int)now);
}

static int attach(uint32_t domid, uint32_t id, const char *file, bool readonly)
{
	uint32_t own = store_number(".", "domid") < 0 ? 0 : store_number(".", "domid");
	char back[PATH_SIZE], front[PATH_SIZE], *path = realpath(file, NULL);
	xs_transaction_t t;

	if (!path)
		err(1, "%s", file);
	if (!xs_is_domain_introduced(xs, domid))
		errx(1, "there is no domain %u", domid);
	snprintf(back, sizeof(back), "/local/domain/%u/" CLASS "/%u/%u", own, domid, id);
	snprintf(front, sizeof(front), "/local/domain/%u/device/vbd/%u", domid, id);
	if (store_number(front, "state") >= 0)
		errx(1, "domain %u has a device %u", domid, id);
	do {
		t = xs_transaction_start(xs);
		make_dir(t, back, own, domid);
		store_write(t, back, "frontend", "%s", front);
		store_write(t, back, "frontend-id", "%u", domid);
		store_write(t, back, "params", "%s", path);
		store_write(t, back, "mode", "%s", readonly ? "r" : "w");
		store_write(t, back, "online", "1");
		store_write(t, back, "state", "%d", XenbusStateInitialising);
		make_dir(t, front, domid, own);
		store_write(t, front, "backend", "%s", back);
		store_write(t, front, "backend-id", "%u", own);
		store_write(t, front, "virtual-device", "%u", id);
		store_write(t, front, "device-type", "disk");
		store_write(t, front, "state", "%d", XenbusStateInitialising);
	} while (!xs_transaction_end(xs, t, false) && errno == EAGAIN);
	wait_for_daemon(back, XenbusStateInitWait);
	return 0;
}

static int detach(uint32_t domid, uint32_t id)
{
	char back[PATH_SIZE], front[PATH_SIZE];

	snprintf(back, sizeof(back), CLASS "/%u/%u", domid, id);
	snprintf(front, sizeof(front), "/local/domain/%u/device/vbd/%u", domid, id);
	if (store_number(back, "state") < 0)
		errx(1, "grant-blkd serves no device %u of domain %u", id, domid);
	store_write(XBT_NULL, back, "online", "0");
	store_write(XBT_NULL, back, "state", "%d", XenbusStateClosing);
	wait_for_daemon(back, 0);
	xs_rm(xs, XBT_NULL, front);
	return 0;
}

/* ------------------------------------------------------------- the command line */

static const char help[] =
"usage: grant-blkd [OPTION]...\n"
"       grant-blkd attach DOMID xvdX FILE [ro]\n"
"       grant-blkd detach DOMID xvdX\n"
"\n"
"Serves disks to Xen guests: each a raw FILE or block device, which is read and\n"
"written with O_DIRECT on the pages that the guest granted.\n"
"\n"
"  --data=persist       pages stay mapped, if the guest takes part (default);\n"
"  --data=map           they are mapped for each request;\n"
"  --data=register      they become a buffer of the io_uring for each request, without\n"
"                       an address (Linux with GNTDEV_URING_REGISTER, else as map);\n"
"  --data=copy          Xen copies from and to them\n"
"  --engine=io_uring    (default) or libaio\n"
"  --max-persistent=N   pages of a disk that stay mapped, per ring (default 1056)\n"
"  --json=FILE          statistics are also written there\n"
"  --help\n"
"\n"
"It runs until SIGTERM, and prints statistics on SIGUSR1. Disks stay attached when it\n"
"ends: the guests wait for the next one. attach and detach make and remove a disk of a\n"
"running grant-blkd. See grant-blkd(8).\n";

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "data", required_argument, NULL, 'd' },
		{ "engine", required_argument, NULL, 'e' },
		{ "max-persistent", required_argument, NULL, 'p' },
		{ "json", required_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static const char * const modes[] = {
		[DATA_MAP] = "map", [DATA_PERSIST] = "persist", [DATA_COPY] = "copy",
		[DATA_REGISTER] = "register",
	};
	char *end;
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case 'd':
			for (mode = DATA_MAP; mode < NR_DATA_MODES; mode++)
				if (!strcmp(optarg, modes[mode]))
					break;
			if (mode == NR_DATA_MODES)
				errx(2, "--data is map, persist, copy or register, not %s", optarg);
			break;
		case 'e':
			use_libaio = !strcmp(optarg, "libaio");
			if (!use_libaio && strcmp(optarg, "io_uring"))
				errx(2, "--engine is io_uring or libaio, not %s", optarg);
			break;
		case 'p':
			max_persistent = strtoul(optarg, &end, 10);
			if (!isdigit(*optarg) || *end)
				errx(2, "--max-persistent is a number, not %s", optarg);
			break;
		case 'j':
			json_file = optarg;
			break;
		case 'h':
			fputs(help, stdout);
			return 0;
		default:
			return 2;
		}
	}
	if (mode == DATA_REGISTER && use_libaio)
		errx(2, "--data=register needs --engine=io_uring");
	argc -= optind;
	argv += optind;
	setvbuf(stderr, NULL, _IOLBF, 0);
	xs = xs_open(0);
	if (!xs)
		err(1, "xenstore");
	if (!argc)
		return run();
	if ((argc == 4 || (argc == 5 && !strcmp(argv[4], "ro"))) && !strcmp(argv[0], "attach"))
		return attach(atoi(argv[1]), device_id(argv[2]), argv[3], argc == 5);
	if (argc == 3 && !strcmp(argv[0], "detach"))
		return detach(atoi(argv[1]), device_id(argv[2]));
	fputs(help, stderr);
	return 2;
}
