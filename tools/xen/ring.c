// SPDX-License-Identifier: GPL-2.0-only
/*
 * The block protocol. The guest is not trusted: a request is copied off its ring once,
 * into the file that outlives the daemon, and the copy is checked. The response to a
 * wrong request is an error; a ring with an impossible index closes the device.
 *
 * All sectors of the protocol have 512 bytes, whatever those of the disk have, as in
 * Linux's blkfront and blkback, and in recent versions of blkif.h.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include "blkd.h"

/* The kinds of requests have their id in the same place, and all fit into the same. */
#define ID_AT(type)	offsetof(struct type, id)
static_assert(ID_AT(blkif_request) == ID_AT(blkif_request_indirect), "id");
static_assert(ID_AT(blkif_request) == ID_AT(blkif_request_discard), "id");
static_assert(sizeof(struct blkif_request_indirect) <= sizeof(struct blkif_request), "size");
static_assert(MAX_SEGMENTS * sizeof(struct blkif_request_segment) <= PAGE, "page");

static void respond(struct request *req)
{
	struct blkif_back_ring *back = &req->ring->back;
	struct blkif_response *rsp = RING_GET_RESPONSE(back, back->rsp_prod_pvt);
	struct device *dev = req->dev;
	bool notify;

	rsp->id = req->saved->req.id;
	rsp->operation = req->op;
	rsp->status = req->status;
	if (req->status != BLKIF_RSP_OKAY)
		dev->stats[STAT_FAILED]++;

	req->saved->rsp = back->rsp_prod_pvt;
	req->saved->answered = 1;
	xen_wmb();
	back->rsp_prod_pvt++;
	RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(back, notify);
	req->ring->notify |= notify;
	xen_wmb();
	req->saved->queue = 0;
	dev->free[dev->nr_free++] = req;
}

static bool transfers(const struct request *req)
{
	return req->bytes;
}

/* Skips what is done already. */
static void advance(struct request *req, uint32_t n)
{
	struct iovec *iov;

	req->done += n;
	for (; n; req->first_iov++) {
		iov = req->iov + req->first_iov;
		if (n < iov->iov_len) {
			iov->iov_base += n;
			iov->iov_len -= n;
			return;
		}
		n -= iov->iov_len;
	}
}

/* @result: bytes, or a negative errno */
void request_end(struct request *req, int64_t result)
{
	struct device *dev = req->dev;

	if (transfers(req) && result > 0 && result < req->bytes - req->done) {
		advance(req, result);
		dev->stats[STAT_SHORT_TRANSFERS]++;
		io_queue(req);
		return;
	}
	if (result < 0 || (transfers(req) && result != req->bytes - req->done))
		req->status = result == -EOPNOTSUPP ? BLKIF_RSP_EOPNOTSUPP : BLKIF_RSP_ERROR;
	if (transfers(req)) {
		if (request_put_pages(req))
			req->status = BLKIF_RSP_ERROR;
		if (!request_released(req)) {
			TAILQ_INSERT_TAIL(&dev->waiting, req, waiting);
			dev->nr_waiting++;
			dev->stats[STAT_LATE_RELEASES]++;
			return;
		}
	}
	respond(req);
}

/* Whether the device has these sectors */
static bool in_range(const struct device *dev, uint64_t sector, uint64_t count)
{
	return count && sector <= dev->sectors && count <= dev->sectors - sector;
}

static int16_t parse_segments(struct request *req, uint64_t sector)
{
	const struct blkif_request_segment *seg = req->seg;
	uint32_t i, sectors = 0;

	req->write = req->op == BLKIF_OP_WRITE;
	if (req->op != BLKIF_OP_READ && !(req->write && !req->dev->readonly))
		return BLKIF_RSP_ERROR;
	for (i = 0; i < req->nr_segs; i++, seg++) {
		if (seg->first_sect > seg->last_sect || seg->last_sect >= PAGE_SECTORS)
			return BLKIF_RSP_ERROR;
		sectors += seg->last_sect - seg->first_sect + 1;
	}
	if (!in_range(req->dev, sector, sectors))
		return BLKIF_RSP_ERROR;
	req->offset = sector * SECTOR;
	req->bytes = sectors * SECTOR;
	return BLKIF_RSP_OKAY;
}

static int16_t parse(struct request *req)
{
	const struct blkif_request *rw = &req->saved->req;
	const struct blkif_request_indirect *indirect = (const void *)rw;
	const struct blkif_request_discard *discard = (const void *)rw;
	struct device *dev = req->dev;

	req->op = rw->operation;
	switch (rw->operation) {
	case BLKIF_OP_READ:
	case BLKIF_OP_WRITE:
		if (rw->nr_segments > BLKIF_MAX_SEGMENTS_PER_REQUEST)
			return BLKIF_RSP_ERROR;
		req->nr_segs = rw->nr_segments;
		memcpy(req->seg, rw->seg, req->nr_segs * sizeof(req->seg[0]));
		return parse_segments(req, rw->sector_number);
	case BLKIF_OP_INDIRECT:
		dev->stats[STAT_INDIRECT]++;
		req->op = indirect->indirect_op;
		if (!indirect->nr_segments || indirect->nr_segments > MAX_SEGMENTS)
			return BLKIF_RSP_ERROR;
		req->nr_segs = indirect->nr_segments;
		if (grants_read(dev, indirect->indirect_grefs[0], req->seg,
				req->nr_segs * sizeof(req->seg[0])))
			return BLKIF_RSP_ERROR;
		return parse_segments(req, indirect->sector_number);
	case BLKIF_OP_FLUSH_DISKCACHE:
		return rw->nr_segments ? BLKIF_RSP_ERROR : BLKIF_RSP_OKAY;
	case BLKIF_OP_DISCARD:
		if (!dev->discard)
			return BLKIF_RSP_EOPNOTSUPP;
		if (dev->readonly ||
		    !in_range(dev, discard->sector_number, discard->nr_sectors))
			return BLKIF_RSP_ERROR;
		req->offset = discard->sector_number * SECTOR;
		req->length = discard->nr_sectors * SECTOR;
		return BLKIF_RSP_OKAY;
	}
	return BLKIF_RSP_EOPNOTSUPP;
}

static void count(uint64_t *stats, const struct request *req)
{
	switch (req->op) {
	case BLKIF_OP_READ:
		stats[STAT_READS]++;
		stats[STAT_READ_SECTORS] += req->bytes / SECTOR;
		break;
	case BLKIF_OP_WRITE:
		stats[STAT_WRITES]++;
		stats[STAT_WRITE_SECTORS] += req->bytes / SECTOR;
		break;
	case BLKIF_OP_FLUSH_DISKCACHE:
		stats[STAT_FLUSHES]++;
		break;
	case BLKIF_OP_DISCARD:
		stats[STAT_DISCARDS]++;
		break;
	}
}

/* The request has been copied to req->saved. */
static void request_start(struct request *req)
{
	struct device *dev = req->dev;

	req->ring = dev->rings + req->saved->queue - 1;
	req->bytes = 0;
	req->done = 0;
	req->first_iov = 0;
	req->status = parse(req);
	if (req->status == BLKIF_RSP_OKAY && transfers(req) && request_get_pages(req))
		req->status = BLKIF_RSP_ERROR;
	if (req->status != BLKIF_RSP_OKAY) {
		dev->stats[STAT_BAD]++;
		respond(req);
		return;
	}
	count(dev->stats, req);
	io_queue(req);
}

static void broken(struct ring *ring, const char *why)
{
	struct device *dev = ring->dev;

	say(dev, "%s in ring %td: the device is closed", why, ring - dev->rings);
	dev->broken = true;
	dev->closing = true;
}

/* Returns whether there may be more. */
static bool consume(struct ring *ring)
{
	struct device *dev = ring->dev;
	int budget = MAX_REQUESTS;
	struct request *req;
	RING_IDX prod;
	int more;

	do {
		prod = __atomic_load_n(&ring->back.sring->req_prod, __ATOMIC_ACQUIRE);
		if (RING_REQUEST_PROD_OVERFLOW(&ring->back, prod)) {
			broken(ring, "an impossible number of requests");
			return false;
		}
		while (ring->back.req_cons != prod) {
			/* Without a free request, rings_work() comes back when one ends. */
			if (!dev->nr_free)
				return false;
			if (!budget--)
				return true;
			req = dev->free[--dev->nr_free];
			RING_COPY_REQUEST(&ring->back, ring->back.req_cons, &req->saved->req);
			req->saved->answered = 0;
			xen_wmb();
			ring->back.req_cons++;
			req->saved->queue = ring - dev->rings + 1;
			request_start(req);
		}
		RING_FINAL_CHECK_FOR_REQUESTS(&ring->back, more);
	} while (more);
	return false;
}

/* The responses to requests whose grants Xen has released by now */
static void end_waiting(struct device *dev)
{
	struct request *req, *next;

	for (req = TAILQ_FIRST(&dev->waiting); req; req = next) {
		next = TAILQ_NEXT(req, waiting);
		if (request_released(req)) {
			TAILQ_REMOVE(&dev->waiting, req, waiting);
			dev->nr_waiting--;
			respond(req);
		}
	}
}

/* Does what can be done without waiting, but not for so long that others have to wait. */
void rings_work(struct device *dev)
{
	uint32_t i, free, rounds = 0;
	bool more;

	do {
		more = false;
		io_reap(dev);
		end_waiting(dev);
		free = dev->nr_free;
		/* The first ring could take all free requests. */
		dev->turn++;
		for (i = 0; !dev->closing && !stopping && i < dev->nr_rings; i++)
			more |= consume(dev->rings + (dev->turn + i) % dev->nr_rings);
		more |= io_submit_queued(dev);
		/* A fast device has completed the I/O by now. */
		more |= free != dev->nr_free;
	} while (more && ++rounds < 8);
	dev->ready = more;

	for (i = 0; i < dev->nr_rings; i++) {
		if (!dev->rings[i].notify)
			continue;
		dev->rings[i].notify = false;
		xenevtchn_notify(dev->evtchn, dev->rings[i].port);
		dev->stats[STAT_NOTIFICATIONS]++;
	}
}

/*
 * Called when the rings are mapped. Requests that a dead daemon has left are repeated.
 * Until a request has its response, blkfront changes neither its pages nor its sectors,
 * so it can be done twice.
 */
int rings_attach(struct device *dev)
{
	uint32_t active[MAX_QUEUES] = { 0 }, i;
	struct inflight *saved;
	struct request *req;
	RING_IDX prod;

	TAILQ_INIT(&dev->waiting);
	dev->nr_waiting = 0;
	dev->nr_free = 0;
	for (i = 0; i < dev->nr_rings; i++) {
		struct blkif_back_ring *back = &dev->rings[i].back;

		back->rsp_prod_pvt = __atomic_load_n(&back->sring->rsp_prod, __ATOMIC_ACQUIRE);
	}
	for (i = 0; i < MAX_REQUESTS; i++) {
		req = dev->requests + i;
		saved = dev->saved->slots + i;
		req->dev = dev;
		req->saved = saved;
		if (saved->queue > dev->nr_rings)
			return -EINVAL;
		if (saved->queue && saved->answered &&
		    (int32_t)(saved->rsp - dev->rings[saved->queue - 1].back.rsp_prod_pvt) < 0)
			saved->queue = 0;
		if (saved->queue) {
			/* Another response may now get the place that it had. */
			saved->answered = 0;
			active[saved->queue - 1]++;
		} else {
			dev->free[dev->nr_free++] = req;
		}
	}
	for (i = 0; i < dev->nr_rings; i++) {
		struct blkif_back_ring *back = &dev->rings[i].back;

		back->req_cons = back->rsp_prod_pvt + active[i];
		prod = __atomic_load_n(&back->sring->req_prod, __ATOMIC_ACQUIRE);
		if (RING_REQUEST_PROD_OVERFLOW(back, prod) ||
		    prod - back->rsp_prod_pvt < active[i]) {
			broken(dev->rings + i, "impossible indices");
			return -EINVAL;
		}
		/* The dead daemon may not have sent the event of its last responses. */
		dev->rings[i].notify = true;
	}
	for (i = 0; i < MAX_REQUESTS; i++) {
		if (dev->saved->slots[i].queue) {
			dev->stats[STAT_REPEATED]++;
			request_start(dev->requests + i);
		}
	}
	return 0;
}
