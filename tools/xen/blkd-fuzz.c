// SPDX-License-Identifier: GPL-2.0-only
/*
 * blkd-fuzz: a frontend that misbehaves, for the test of grant-blkd. It runs in a guest.
 *
 *	blkd-fuzz BACKEND FRONTEND SESSIONS SEED [ROUNDS]
 *
 * BACKEND is the device's directory in xenstore, FRONTEND one of the guest's own, not in
 * device/, so that blkfront does not see it. In each session it connects, most often with
 * correct parameters, and sends requests in which any field may be wrong. It knows which
 * response each must have. A session can end with impossible ring indices, with requests
 * in flight, or with a thread that changes the shared pages all the time. Then it
 * connects again. What should happen: every request has the right response, a broken ring
 * closes the device, and the last sessions, which are good, read what they wrote.
 *
 * It exits with 0 if all was right.
 */
#include <ctype.h>
#include <err.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blkd.h"
#include "fake-xen.h"
#include <xengnttab.h>
#include <xen/io/protocols.h>
#include <xen/io/xenbus.h>
#include <xenstore.h>

#define DATA_PAGES	64
#define RO_PAGES	4
#define DESCRIPTORS	8		/* pages with segments of indirect requests */
#define QUEUES		3
#define ORDER		2
#define NO_REF		60000		/* and above: granted to nobody */
#define IDS		1024
#define ANY		1		/* is no status of a response */

struct queue {
	struct blkif_front_ring front;
	uint32_t refs[1 << ORDER];
	int port;
	void *pages;
};

struct sent {
	bool used;
	uint64_t id;
	uint8_t op;
	int16_t status;
};

static struct queue queues[QUEUES];
static struct sent sent[IDS];
static xenevtchn_handle *evtchn;
static struct xs_handle *xs;
static const char *back, *front;
static uint32_t data_refs[DATA_PAGES], ro_refs[RO_PAGES], descriptor_refs[DESCRIPTORS];
static uint8_t *data, *descriptors;
static uint64_t sectors;
static bool persistent, discard, readonly;
static uint64_t random_state;
static unsigned long nr_good, nr_bad, nr_any, nr_closed, nr_refused;
static volatile bool scribble;
static uint32_t nr_queues, order, next_descriptor;
static unsigned long rounds = 20;		/* of requests in a session */

bool (*still_mapped)(uint32_t ref);

static uint32_t rnd(uint32_t below)
{
	random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (random_state >> 33) % below;
}

static void write_node(const char *name, const char *format, ...)
{
	char path[256], text[64];
	va_list args;

	snprintf(path, sizeof(path), "%s/%s", front, name);
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (!xs_write(xs, XBT_NULL, path, text, strlen(text)))
		err(1, "xenstore: %s", path);
}

static uint64_t backend_number(const char *name)
{
	uint64_t value = 0;
	unsigned int len;
	char path[256], *text;

	snprintf(path, sizeof(path), "%s/%s", back, name);
	text = xs_read(xs, XBT_NULL, path, &len);
	if (text)
		value = strtoull(text, NULL, 10);
	free(text);
	return value;
}

/* Waits for a state of the backend; the set has a bit for each */
static uint64_t wait_state(uint32_t set, const char *what)
{
	uint64_t state = 0;
	int i;

	for (i = 0; i < 2000; i++) {
		state = backend_number("state");
		if (set & 1u << state)
			return state;
		usleep(10000);
	}
	errx(1, "the backend stays in state %llu: %s", (unsigned long long)state, what);
}

/* ------------------------------------------------------------- requests */

/* 0: not granted, 1: for reading, 2: for reading and writing */
static int access_of(uint32_t ref)
{
	int i;

	for (i = 0; i < DATA_PAGES; i++)
		if (data_refs[i] == ref)
			return 2;
	for (i = 0; i < RO_PAGES; i++)
		if (ro_refs[i] == ref)
			return 1;
	return 0;
}

/* What the response to these segments has to be */
static int16_t expect_segments(const struct blkif_request_segment *seg, uint32_t n, uint32_t max,
			       uint8_t op, uint64_t sector)
{
	uint64_t count = 0;
	bool any = false;
	uint32_t i;

	if (!n || n > max || op > BLKIF_OP_WRITE || (op == BLKIF_OP_WRITE && readonly))
		return BLKIF_RSP_ERROR;
	for (i = 0; i < n; i++) {
		if (seg[i].first_sect > seg[i].last_sect || seg[i].last_sect > 7)
			return BLKIF_RSP_ERROR;
		count += seg[i].last_sect - seg[i].first_sect + 1;
		switch (access_of(seg[i].gref)) {
		case 0:
			return BLKIF_RSP_ERROR;
		case 1:
			if (op == BLKIF_OP_READ)
				return BLKIF_RSP_ERROR;
			any = true;
		}
	}
	if (sector > sectors || count > sectors - sector)
		return BLKIF_RSP_ERROR;
	return any ? ANY : BLKIF_RSP_OKAY;
}

static uint64_t random_sector(void)
{
	static const uint64_t far[] = { -1ULL, -8ULL, 1ULL << 55, 1ULL << 63, 1ULL << 32 };

	switch (rnd(12)) {
	case 0: return far[rnd(5)];
	case 1: return sectors - rnd(16);
	case 2: return sectors + rnd(16);
	default: return rnd(sectors - 2048) & ~7U;
	}
}

static uint32_t random_ref(void)
{
	switch (rnd(20)) {
	case 0: return NO_REF + rnd(1000);
	case 1: return -1U - rnd(1000);
	case 2: return ro_refs[rnd(RO_PAGES)];
	default: return data_refs[rnd(DATA_PAGES)];
	}
}

static void fill_segments(struct blkif_request_segment *seg, uint32_t n, bool good)
{
	uint32_t i, bad = good ? n : rnd(2 * n + 1);

	for (i = 0; i < n; i++) {
		seg[i].gref = i == bad ? random_ref() : data_refs[rnd(DATA_PAGES)];
		seg[i].first_sect = 0;
		seg[i].last_sect = 7;
		if (i == bad) {
			seg[i].first_sect = rnd(10);
			seg[i].last_sect = rnd(8) ? rnd(10) : rnd(256);
		}
	}
}

/* Puts a random request on the ring. */
static void send_request(struct queue *queue, bool good)
{
	struct blkif_request req = { 0 };
	struct blkif_request_indirect *indirect = (void *)&req;
	struct blkif_request_discard *dis = (void *)&req;
	struct blkif_request_segment *seg;
	uint32_t slot, page, i, n;
	uint8_t *raw = (void *)&req;
	struct sent *s;

	for (slot = rnd(IDS); sent[slot].used; slot = (slot + 1) % IDS)
		;
	s = &sent[slot];
	s->id = ((uint64_t)rnd(1u << 30) << 32) | slot;
	if (!good && !rnd(30)) {
		/* No field is right, or the granted pages would hold something else. */
		for (i = 0; i < sizeof(req); i++)
			raw[i] = rnd(256);
		req.operation |= 8;
	} else {
		req.operation = rnd(10) < 7 ? rnd(2) : good ? rnd(2) : rnd(8);
		if (!rnd(4))
			req.operation = BLKIF_OP_INDIRECT;
		/* Each has a page of its own until its response is there. */
		if (req.operation == BLKIF_OP_INDIRECT && next_descriptor == DESCRIPTORS)
			req.operation = BLKIF_OP_READ;
	}
	s->op = req.operation;
	s->status = BLKIF_RSP_EOPNOTSUPP;
	switch (req.operation) {
	case BLKIF_OP_READ:
	case BLKIF_OP_WRITE:
		n = 1 + rnd(BLKIF_MAX_SEGMENTS_PER_REQUEST);
		fill_segments(req.seg, BLKIF_MAX_SEGMENTS_PER_REQUEST, true);
		fill_segments(req.seg, n, good);
		if (!good && !rnd(8))
			n = rnd(2) ? BLKIF_MAX_SEGMENTS_PER_REQUEST + 1 : rnd(256);
		req.nr_segments = n;
		req.sector_number = good ? rnd(sectors - 2048) & ~7U : random_sector();
		s->status = expect_segments(req.seg, n, BLKIF_MAX_SEGMENTS_PER_REQUEST,
					    req.operation, req.sector_number);
		break;
	case BLKIF_OP_FLUSH_DISKCACHE:
		req.nr_segments = rnd(3) ? 0 : rnd(256);
		s->status = req.nr_segments ? BLKIF_RSP_ERROR : BLKIF_RSP_OKAY;
		break;
	case BLKIF_OP_DISCARD:
		dis->flag = rnd(2);
		dis->sector_number = random_sector() & ~7ULL;
		dis->nr_sectors = rnd(4) ? 8 + 8 * rnd(32) : random_sector();
		/* The sum of both overflows, and is small. */
		if (!rnd(4))
			dis->nr_sectors -= dis->sector_number;
		if (!discard)
			break;
		s->status = dis->nr_sectors && dis->sector_number <= sectors &&
			    dis->nr_sectors <= sectors - dis->sector_number ?
			    ANY : BLKIF_RSP_ERROR;
		break;
	case BLKIF_OP_INDIRECT:
		page = next_descriptor++;
		seg = (void *)(descriptors + page * PAGE);
		n = 1 + rnd(rnd(8) ? 32 : MAX_SEGMENTS);
		fill_segments(seg, n, good);
		if (!good && !rnd(8))
			n = rnd(65536);
		indirect->indirect_op = good || rnd(8) ? rnd(2) : rnd(256);
		indirect->nr_segments = n;
		indirect->sector_number = good ? rnd(sectors - 2048) & ~7U : random_sector();
		indirect->indirect_grefs[0] = good || rnd(8) ? descriptor_refs[page] :
					      NO_REF + rnd(1000);
		s->op = indirect->indirect_op;
		if (n > MAX_SEGMENTS || !n || indirect->indirect_grefs[0] >= NO_REF)
			s->status = BLKIF_RSP_ERROR;
		else
			s->status = expect_segments(seg, n, MAX_SEGMENTS, indirect->indirect_op,
						    indirect->sector_number);
		break;
	}
	req.id = s->id;
	req.handle = req.operation == BLKIF_OP_INDIRECT ? req.handle : rnd(65536);
	s->used = true;
	*RING_GET_REQUEST(&queue->front, queue->front.req_prod_pvt) = req;
	queue->front.req_prod_pvt++;
}

/* Random requests, at most as many as the ring has room for */
static void send_some(struct queue *queue, bool good)
{
	uint32_t n = rnd(queue->front.nr_ents) + 1;

	while (n--)
		send_request(queue, good);
}

static void push(struct queue *queue)
{
	int notify;

	RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&queue->front, notify);
	if (notify || !rnd(16))
		xenevtchn_notify(evtchn, queue->port);
}

/* Takes all responses off the ring; @any: they may be about anything. */
static bool receive(struct queue *queue, bool any)
{
	struct blkif_response rsp;
	struct sent *s;
	int i;

	for (i = 0; queue->front.rsp_cons != queue->front.req_prod_pvt; ) {
		if (queue->front.rsp_cons ==
		    __atomic_load_n(&queue->front.sring->rsp_prod, __ATOMIC_ACQUIRE)) {
			if (++i > 10000)
				return false;
			queue->front.sring->rsp_event = queue->front.rsp_cons + 1;
			usleep(1000);
			continue;
		}
		RING_COPY_RESPONSE(&queue->front, queue->front.rsp_cons++, &rsp);
		if (any)
			continue;
		s = &sent[rsp.id % IDS];
		if (!s->used || s->id != rsp.id)
			errx(1, "a response to nothing: id %llx", (unsigned long long)rsp.id);
		if (s->op != rsp.operation || (s->status != ANY && s->status != rsp.status))
			errx(1, "operation %u has the response %d of operation %u, not %d", s->op,
			     rsp.status, rsp.operation, s->status);
		s->used = false;
		if (s->status == ANY)
			nr_any++;
		else if (s->status == BLKIF_RSP_OKAY)
			nr_good++;
		else
			nr_bad++;
	}
	return true;
}

/* ------------------------------------------------------------- sessions */

/* One node with nonsense. Returns whether the backend may connect nevertheless. */
static bool spoil_node(void)
{
	static const char * const nodes[] = {
		"event-channel", "ring-ref", "ring-page-order", "multi-queue-num-queues",
		"protocol", "feature-persistent",
	};
	static const char * const values[] = {
		"", "-1", "x", "0", "60001", "4294967295", "4294967296",
		"99999999999999999999", " 1", "9", "%s%n",
	};
	uint32_t node = rnd(6);

	write_node(nodes[node], "%s", values[rnd(11)]);
	return node != 3 && node != 4;
}

static void connect_queues(void)
{
	char name[64], dir[32];
	uint32_t i, page;

	nr_queues = 1 + rnd(QUEUES);
	order = rnd(ORDER + 1);
	persistent = rnd(2);
	/* If the number is spoilt, there is more than the backend can take. */
	for (i = 0; i < (nr_queues > 1 ? MAX_QUEUES + 1 : 1); i++) {
		struct queue *queue = &queues[i % nr_queues];

		XEN_FRONT_RING_INIT(&queue->front, (struct blkif_sring *)queue->pages,
				    PAGE << order);
		*dir = 0;
		if (nr_queues > 1)
			snprintf(dir, sizeof(dir), "queue-%u/", i);
		snprintf(name, sizeof(name), "%sevent-channel", dir);
		write_node(name, "%u", queue->port);
		for (page = 0; page < 1u << order; page++) {
			snprintf(name, sizeof(name), order ? "%sring-ref%u" : "%sring-ref", dir,
				 page);
			write_node(name, "%u", queue->refs[page]);
		}
	}
	write_node("multi-queue-num-queues", "%u", nr_queues);
	write_node("ring-page-order", "%u", order);
	write_node("feature-persistent", "%d", persistent);
	write_node("protocol", XEN_IO_PROTO_ABI_NATIVE);
}

/* Changes what the backend may read, as long as it is told to. */
static void *scribbler(void *unused)
{
	uint64_t state = 1;
	uint32_t queue;

	for (;;) {
		if (!scribble) {
			usleep(1000);
			continue;
		}
		state = state * 6364136223846793005ULL + 1442695040888963407ULL;
		/* A descriptor's sectors, and so much of its reference that it is none. */
		descriptors[(state >> 33) % (DESCRIPTORS * PAGE) / 8 * 8 + 3 + (state >> 30) % 3] =
			state >> 56;
		queue = (state >> 20) % nr_queues;
		/* Operation and number of segments */
		((uint8_t *)&queues[queue].front.sring->ring[(state >> 40) % 32].req)
			[(state >> 48) % 2] = state >> 56;
	}
	return unused;
}

static void disconnect_frontend(void)
{
	write_node("state", "%d", XenbusStateClosing);
	if (rnd(2))
		usleep(rnd(20000));
	write_node("state", "%d", XenbusStateClosed);
	wait_state(1 << XenbusStateClosed, "closing");
	write_node("state", "%d", XenbusStateInitialising);
	wait_state(1 << XenbusStateInitWait, "connecting again");
}

static void break_ring(struct queue *queue)
{
	const uint32_t n = queue->front.nr_ents;
	const uint32_t by[] = { n + 1, n + 33, 1u << 31, -1U, -1000U };

	queue->front.sring->req_prod = queue->front.req_prod_pvt + by[rnd(5)];
	xenevtchn_notify(evtchn, queue->port);
	wait_state(1 << XenbusStateClosing, "after an impossible ring index");
	nr_closed++;
}

static void session(bool good)
{
	bool spoilt = !good && !rnd(4), may_connect = true, any = !good && !rnd(6);
	struct queue *queue;
	unsigned long round, i;
	uint64_t state;

	memset(sent, 0, sizeof(sent));
	connect_queues();
	if (spoilt)
		may_connect = spoil_node();
	write_node("state", "%d", XenbusStateInitialised);
	state = wait_state(1 << XenbusStateConnected | 1 << XenbusStateClosing, "connecting");
	if (state == XenbusStateClosing) {
		if (!spoilt)
			errx(1, "the backend does not connect");
		nr_refused++;
		disconnect_frontend();
		return;
	}
	if (!may_connect)
		errx(1, "the backend connects to nonsense");
	write_node("state", "%d", XenbusStateConnected);
	discard = backend_number("feature-discard");
	/* A spoilt one may be connected in another way than it believes. */
	for (round = 0; !spoilt && round < rounds; round++) {
		scribble = any;
		next_descriptor = 0;
		for (queue = queues; queue < queues + nr_queues; queue++) {
			send_some(queue, good);
			push(queue);
		}
		for (queue = queues; queue < queues + nr_queues; queue++)
			if (!receive(queue, any) && !any)
				errx(1, "no response after 10 s");
		for (i = 0; still_mapped && !persistent && i < DATA_PAGES; i++)
			if (still_mapped(data_refs[i]))
				errx(1, "a page is mapped after the response");
		if (any)
			memset(sent, 0, sizeof(sent));
		scribble = false;
	}
	if (!spoilt && !good) {
		switch (rnd(3)) {
		case 0:
			break_ring(queues + rnd(nr_queues));
			break;
		case 1:
			next_descriptor = 0;
			send_some(queues, false);
			push(queues);
			break;
		}
	}
	disconnect_frontend();
}

/* One page to each of some sectors, and back */
static void write_and_read(void)
{
	struct queue *queue = queues;
	struct blkif_request *req;
	uint32_t i, at, write;
	uint8_t *page;

	connect_queues();
	write_node("state", "%d", XenbusStateInitialised);
	wait_state(1 << XenbusStateConnected, "connecting for the last time");
	write_node("state", "%d", XenbusStateConnected);
	for (write = 1; write + 1; write--) {
		for (i = 0; i < 16; i++) {
			page = data + i * PAGE;
			for (at = 0; at < PAGE; at += 4)
				*(uint32_t *)(page + at) = write ? i * PAGE + at : 0;
			req = RING_GET_REQUEST(&queue->front, queue->front.req_prod_pvt++);
			memset(req, 0, sizeof(*req));
			req->operation = write ? BLKIF_OP_WRITE : BLKIF_OP_READ;
			req->nr_segments = 1;
			req->id = i;
			req->sector_number = i * 64;
			req->seg[0].gref = data_refs[i];
			req->seg[0].last_sect = 7;
			sent[i] = (struct sent){ .used = true, .id = i, .op = req->operation };
		}
		push(queue);
		if (!receive(queue, false))
			errx(1, "no response after 10 s");
	}
	for (at = 0; at < 16 * PAGE; at += 4)
		if (*(uint32_t *)(data + at) != at)
			errx(1, "byte %u is not what was written", at);
	disconnect_frontend();
}

int main(int argc, char **argv)
{
	xengntshr_handle *shr = xengntshr_open(NULL, 0);
	unsigned long n, i;
	pthread_t thread;

	if (argc < 5)
		errx(2, "usage: blkd-fuzz BACKEND FRONTEND SESSIONS SEED [ROUNDS]");
	back = argv[1];
	front = argv[2];
	n = strtoul(argv[3], NULL, 0);
	random_state = strtoul(argv[4], NULL, 0);
	if (argc > 5)
		rounds = strtoul(argv[5], NULL, 0);

	xs = xs_open(0);
	evtchn = xenevtchn_open(NULL, 0);
	if (!xs || !evtchn || !shr)
		err(1, "/dev/xen");
	data = xengntshr_share_pages(shr, 0, DATA_PAGES, data_refs, 1);
	descriptors = xengntshr_share_pages(shr, 0, DESCRIPTORS, descriptor_refs, 1);
	if (!data || !descriptors || !xengntshr_share_pages(shr, 0, RO_PAGES, ro_refs, 0))
		err(1, "gntalloc");
	/* Reference 0 is that of the console. */
	for (i = 0; i < DESCRIPTORS * PAGE / sizeof(struct blkif_request_segment); i++)
		((struct blkif_request_segment *)descriptors)[i].gref = data_refs[i % DATA_PAGES];
	for (i = 0; i < QUEUES; i++) {
		queues[i].pages = xengntshr_share_pages(shr, 0, 1 << ORDER, queues[i].refs, 1);
		queues[i].port = xenevtchn_bind_unbound_port(evtchn, 0);
		if (!queues[i].pages || queues[i].port < 0)
			err(1, "a ring");
	}
	nr_queues = 1;
	if (pthread_create(&thread, NULL, scribbler, NULL))
		errx(1, "thread");

	write_node("state", "%d", XenbusStateInitialising);
	wait_state(1 << XenbusStateInitWait, "at first");
	sectors = backend_number("sectors");
	readonly = backend_number("info") & VDISK_READONLY;
	if (sectors < 4096)
		errx(1, "the disk has only %llu sectors", (unsigned long long)sectors);
	for (i = 0; i < n; i++)
		session(!rnd(5));
	for (i = 0; i < 10 && !readonly; i++)
		write_and_read();
	printf("%lu sessions: %lu requests right, %lu wrong, %lu either; ", n, nr_good, nr_bad,
	       nr_any);
	printf("%lu rings broken, %lu connections refused\n", nr_closed, nr_refused);
	return 0;
}
