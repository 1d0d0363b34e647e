// SPDX-License-Identifier: GPL-2.0-only
/*
 * The two engines: io_uring and libaio. A device has one of its own, with room for
 * all of its requests.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "blkd.h"

int io_open(struct device *dev)
{
	int rc;

	dev->eventfd = -1;
	dev->nr_queued = 0;
	if (!use_libaio) {
		rc = io_uring_queue_init(MAX_REQUESTS, &dev->uring,
					 IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER);
		if (rc == -EINVAL)
			rc = io_uring_queue_init(MAX_REQUESTS, &dev->uring, 0);
		if (rc)
			dev->uring.ring_fd = -1;
		return rc;
	}
	dev->aio = NULL;
	rc = io_setup(MAX_REQUESTS, &dev->aio);
	if (rc)
		return rc;
	dev->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return dev->eventfd < 0 ? -errno : 0;
}

void io_close(struct device *dev)
{
	if (!use_libaio) {
		if (dev->uring.ring_fd >= 0)
			io_uring_queue_exit(&dev->uring);
		dev->uring.ring_fd = -1;
		return;
	}
	if (dev->aio)
		io_destroy(dev->aio);
	dev->aio = NULL;
	if (dev->eventfd >= 0)
		close(dev->eventfd);
	dev->eventfd = -1;
}

/* Becomes readable when I/O completes; it is not read, and stays so. */
int io_fd(const struct device *dev)
{
	return use_libaio ? dev->eventfd : dev->uring.ring_fd;
}

static void queue_uring(struct request *req)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&req->dev->uring);
	struct iovec *iov = req->iov + req->first_iov;
	uint32_t n = req->nr_iov - req->first_iov;
	uint64_t offset = req->offset + req->done;
	int fd = req->dev->fd;

	switch (req->op) {
	case BLKIF_OP_FLUSH_DISKCACHE:
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
		break;
	case BLKIF_OP_DISCARD:
		io_uring_prep_fallocate(sqe, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					offset, req->length);
		break;
	case BLKIF_OP_READ:
		if (n == 1)
			io_uring_prep_read(sqe, fd, iov->iov_base, iov->iov_len, offset);
		else
			io_uring_prep_readv(sqe, fd, iov, n, offset);
		break;
	default:
		if (n == 1)
			io_uring_prep_write(sqe, fd, iov->iov_base, iov->iov_len, offset);
		else
			io_uring_prep_writev(sqe, fd, iov, n, offset);
	}
	io_uring_sqe_set_data(sqe, req);
}

static void queue_libaio(struct request *req)
{
	struct iovec *iov = req->iov + req->first_iov;
	uint32_t n = req->nr_iov - req->first_iov;
	uint64_t offset = req->offset + req->done;
	struct device *dev = req->dev;

	switch (req->op) {
	case BLKIF_OP_FLUSH_DISKCACHE:
		io_prep_fdsync(&req->iocb, dev->fd);
		break;
	case BLKIF_OP_DISCARD:
		/* There is no other way, and it is rare. */
		request_end(req, fallocate(dev->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					   offset, req->length) ? -errno : 0);
		return;
	case BLKIF_OP_READ:
		io_prep_preadv(&req->iocb, dev->fd, iov, n, offset);
		break;
	default:
		io_prep_pwritev(&req->iocb, dev->fd, iov, n, offset);
	}
	io_set_eventfd(&req->iocb, dev->eventfd);
	req->iocb.data = req;
	dev->queued[dev->nr_queued++] = &req->iocb;
}

void io_queue(struct request *req)
{
	if (use_libaio)
		queue_libaio(req);
	else
		queue_uring(req);
}

/* Returns whether there is something that the kernel does not take now. */
bool io_submit_queued(struct device *dev)
{
	uint32_t at = 0;
	int rc;

	if (!use_libaio) {
		if (!io_uring_sq_ready(&dev->uring))
			return false;
		dev->stats[STAT_SUBMISSIONS]++;
		return io_uring_submit(&dev->uring) < 0;
	}
	while (at < dev->nr_queued) {
		rc = io_submit(dev->aio, dev->nr_queued - at, dev->queued + at);
		dev->stats[STAT_SUBMISSIONS]++;
		if (rc > 0)
			at += rc;
		else	/* It is about the first one. */
			request_end(dev->queued[at++]->data, rc ? rc : -EIO);
	}
	dev->nr_queued = 0;
	return false;
}

void io_reap(struct device *dev)
{
	struct io_event events[MAX_REQUESTS];
	struct timespec none = { 0 };
	struct io_uring_cqe *cqe;
	struct request *req;
	int i, n;

	if (!use_libaio) {
		while (!io_uring_peek_cqe(&dev->uring, &cqe)) {
			req = io_uring_cqe_get_data(cqe);
			n = cqe->res;
			io_uring_cqe_seen(&dev->uring, cqe);
			request_end(req, n);
		}
		return;
	}
	n = io_getevents(dev->aio, 0, MAX_REQUESTS, events, &none);
	for (i = 0; i < n; i++)
		request_end(events[i].data, (long)events[i].res);
}
