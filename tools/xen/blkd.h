/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * grant-blkd: see grant-blkd.c for what it is and how its parts work together.
 */
#ifndef BLKD_H
#define BLKD_H

/* Xen's headers take it for an ancient one without. */
#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__

#include <libaio.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>

/* ring.h wants these. */
#define xen_mb()	__atomic_thread_fence(__ATOMIC_SEQ_CST)
#define xen_rmb()	__atomic_thread_fence(__ATOMIC_ACQUIRE)
#ifdef FAKE_XEN
void xen_wmb(void);
#else
#define xen_wmb()	__atomic_thread_fence(__ATOMIC_RELEASE)
#endif
#include <xen/xen.h>
#include <xen/grant_table.h>
#include <xen/event_channel.h>
#include <xen/io/blkif.h>

#define PAGE		4096U
#define SECTOR		512U		/* of the protocol, whatever the disk has */
#define PAGE_SECTORS	(PAGE / SECTOR)

#define MAX_QUEUES	8
#define MAX_RING_ORDER	4		/* as blkfront */
#define MAX_RING_PAGES	16
#define MAX_SEGMENTS	256		/* their descriptors fit into one page */
#define MAX_REQUESTS	128		/* in flight, of a device */
#define REFS_PER_FRAME	(PAGE / sizeof(struct grant_entry_v1))
#define MAX_FRAMES	4096		/* of a grant table */

enum data_mode { DATA_MAP, DATA_PERSIST, DATA_COPY, DATA_REGISTER, NR_DATA_MODES };

/* One ioctl and one mmap(); unmapped page by page or as a whole */
struct mapping {
	uint64_t index;
	uint32_t pages;
	uint32_t left;
};

/* A grant that stays mapped; in the LRU list while no request uses it */
struct grant {
	TAILQ_ENTRY(grant) lru;
	struct grant *next;		/* in its bucket */
	struct mapping *map;
	void *addr;
	uint32_t ref;
	uint32_t users;
};

TAILQ_HEAD(grant_list, grant);

#define GRANT_BUCKETS	4096

/*
 * What has to survive the daemon to answer a request: it lies in a file in
 * /run, and a restarted daemon repeats the requests that it finds there.
 * @queue is written last when a request is taken off its ring, and cleared
 * once the response is on it. A response that is on the ring is recognised by
 * its index, @rsp.
 */
struct inflight {
	uint32_t queue;			/* + 1; 0: free */
	uint32_t answered;
	uint32_t rsp;
	struct blkif_request req;
};

/* An element of GNTDEV_URING_REGISTER's array, see include/uapi/xen/gntdev.h of Linux */
struct uring_buffer {
	uint32_t index;
	uint32_t domid;
	uint32_t flags;
	uint32_t count;
	uint64_t refs;
	uint32_t failed;
	int32_t status;
};

struct inflight_file {
	uint32_t queues;
	uint32_t order;
	uint32_t ports[MAX_QUEUES];
	uint32_t refs[MAX_QUEUES][MAX_RING_PAGES];
	struct inflight slots[MAX_REQUESTS];
};

struct device;

struct ring {
	struct device *dev;
	struct blkif_back_ring back;
	struct mapping map;
	evtchn_port_t port;		/* ours */
	bool bound;
	bool notify;
};

struct request {
	TAILQ_ENTRY(request) waiting;	/* for its grants to be released */
	struct device *dev;
	struct ring *ring;
	struct inflight *saved;
	uint8_t op;			/* as the response names it */
	bool write;
	int16_t status;
	uint32_t nr_segs;
	uint32_t nr_iov;
	uint32_t first_iov;		/* with something left to do */
	uint32_t bytes;
	uint32_t done;
	uint64_t offset;		/* in bytes */
	uint64_t length;		/* of a discard */
	void *addr;			/* where the pages are mapped, or the copy */
	struct mapping map;
	bool released;			/* the kernel says so: no need to look */
	int32_t result;			/* of the I/O on registered pages */
	struct uring_buffer buffer;
	uint32_t refs[MAX_SEGMENTS];
	struct iocb iocb;
	struct blkif_request_segment seg[MAX_SEGMENTS];
	struct grant *grant[MAX_SEGMENTS];
	struct iovec iov[MAX_SEGMENTS];
};

TAILQ_HEAD(request_list, request);

/* Counters of a device, whose names grant-blkd.c has */
enum statistic {
	STAT_READS, STAT_WRITES, STAT_FLUSHES, STAT_DISCARDS, STAT_READ_SECTORS,
	STAT_WRITE_SECTORS, STAT_FAILED, STAT_BAD, STAT_INDIRECT, STAT_EVENTS,
	STAT_NOTIFICATIONS, STAT_SUBMISSIONS, STAT_MAP_CALLS, STAT_PAGES_MAPPED,
	STAT_PAGES_FOUND, STAT_PAGES_EVICTED, STAT_PAGES_COPIED, STAT_LATE_RELEASES,
	STAT_SHORT_TRANSFERS, STAT_REPEATED, STAT_CONNECTS, NR_STATISTICS,
};

struct device {
	LIST_ENTRY(device) list;
	uint32_t domid;
	uint32_t id;
	char *path;			/* of the backend in xenstore */
	char *front;

	/* the backing store */
	int fd;
	dev_t st_dev;
	ino_t st_ino;
	bool readonly;
	bool block;
	bool discard;
	uint32_t sector_size;
	uint32_t granularity;
	uint64_t sectors;

	/* while it is connected */
	bool connected;
	bool closing;
	bool broken;
	bool ready;			/* there may be work */
	enum data_mode data;
	bool persistent;		/* DATA_PERSIST, and the frontend takes part */
	int gntdev;
	xenevtchn_handle *evtchn;
	uint32_t nr_rings;
	uint32_t turn;
	struct ring rings[MAX_QUEUES];
	struct inflight_file *saved;
	struct request *requests;
	struct request *free[MAX_REQUESTS];
	uint32_t nr_free;
	struct request_list waiting;
	uint32_t nr_waiting;

	/* grants.c */
	void *arena;
	struct grant *buckets[GRANT_BUCKETS];
	struct grant_list lru;
	uint32_t nr_grants;
	xenforeignmemory_handle *foreign;
	void *frames[MAX_FRAMES];	/* handles of @table */
	volatile grant_entry_v1_t *table[MAX_FRAMES];

	/* io.c */
	struct io_uring uring;
	io_context_t aio;
	int eventfd;
	struct iocb *queued[MAX_REQUESTS];
	uint32_t nr_queued;

	uint64_t stats[NR_STATISTICS];
	uint64_t quiet_until;		/* ms: see say() */
	uint32_t unsaid;
};

extern bool use_libaio;
extern bool stopping;			/* take no more requests */
extern uint32_t max_persistent;		/* of each ring */

void say(struct device *dev, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* grants.c: the guest's pages */
int grants_open(struct device *dev, uint32_t ring_ref);
void grants_close(struct device *dev);
void *grants_map(struct device *dev, struct mapping *map, const uint32_t *refs, uint32_t n,
		 bool write);
void grants_unmap(struct device *dev, struct mapping *map, void *addr, uint32_t n);
int grants_read(struct device *dev, uint32_t ref, void *to, uint32_t len);
int request_get_pages(struct request *req);
int request_put_pages(struct request *req);
bool request_released(const struct request *req);

/* io.c: the engines */
int io_open(struct device *dev);
void io_close(struct device *dev);
int io_fd(const struct device *dev);
void io_queue(struct request *req);
bool io_submit_queued(struct device *dev);
void io_reap(struct device *dev);

/* ring.c: the block protocol */
int rings_attach(struct device *dev);
void rings_work(struct device *dev);
void request_end(struct request *req, int64_t result);

#endif
