// SPDX-License-Identifier: GPL-2.0-only
/*
 * The two engines: io_uring and libaio. A device has one of its own, with room for
 * all of its requests.
 *
 * With registered pages a request is a chain of three SQEs: gntdev makes its pages a
 * buffer of the ring, the I/O uses that, and the buffer goes again, whether the I/O
 * failed or not. What is as expected has no CQE but the last one, whose result is 0
 * if the guest can have its pages back.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "blkd.h"

#define GNTDEV_URING_REGISTER	_IOC(_IOC_NONE, 'G', 32, sizeof(struct uring_buffer))
#define GNTDEV_URING_UNREGISTER	_IOC(_IOC_NONE, 'G', 33, sizeof(uint32_t))
#define GNTDEV_URING_READ_ONLY	1

/* Newer than Debian's header: IORING_OP_READV_FIXED, IORING_OP_WRITEV_FIXED */
#define OP_READV_FIXED		60
#define OP_WRITEV_FIXED		61

/* What a CQE is about: the lowest bits of its user_data, which is the request */
enum { IO, REGISTER, UNREGISTER, ABOUT };

static struct io_uring_sqe *gntdev_sqe(struct device *dev, uint32_t op, void *array, uint32_t len)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&dev->uring);

	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, dev->gntdev, array, len, 0);
	sqe->cmd_op = op;
	return sqe;
}

/* An empty array is an invalid argument, if the kernel knows the command. */
static bool can_register(struct device *dev)
{
	struct io_uring_cqe *cqe;
	bool known;

	if (io_uring_register_buffers_sparse(&dev->uring, MAX_REQUESTS))
		return false;
	gntdev_sqe(dev, GNTDEV_URING_REGISTER, NULL, 0);
	if (io_uring_submit_and_wait(&dev->uring, 1) < 0 ||
	    io_uring_peek_cqe(&dev->uring, &cqe))
		return false;
	known = cqe->res == -EINVAL;
	io_uring_cqe_seen(&dev->uring, cqe);
	return known;
}

int io_open(struct device *dev)
{
	int rc;

	dev->eventfd = -1;
	dev->nr_queued = 0;
	if (!use_libaio) {
		rc = io_uring_queue_init(ABOUT * MAX_REQUESTS, &dev->uring,
					 IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER);
		if (rc == -EINVAL)
			rc = io_uring_queue_init(ABOUT * MAX_REQUESTS, &dev->uring, 0);
		if (rc) {
			dev->uring.ring_fd = -1;
		} else if (dev->data == DATA_REGISTER && !can_register(dev)) {
			say(dev, "this kernel's gntdev registers no buffers: pages are mapped");
			dev->data = DATA_MAP;
		}
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

/* Whether its pages are a buffer of the ring for it */
static bool registers(const struct request *req)
{
	return req->dev->data == DATA_REGISTER && req->bytes;
}

static void queue_registered(struct request *req)
{
	struct device *dev = req->dev;
	struct iovec *iov = req->iov + req->first_iov;
	uint32_t n = req->nr_iov - req->first_iov, i = req - dev->requests;
	uint64_t offset = req->offset + req->done;
	struct io_uring_sqe *sqe;

	req->result = req->bytes - req->done;
	req->buffer = (struct uring_buffer) {
		.index = i,
		.domid = dev->domid,
		.flags = req->write ? GNTDEV_URING_READ_ONLY : 0,
		.count = req->nr_segs,
		.refs = (uintptr_t)req->refs,
	};
	sqe = gntdev_sqe(dev, GNTDEV_URING_REGISTER, &req->buffer, 1);
	sqe->flags = IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = (uintptr_t)req | REGISTER;

	sqe = io_uring_get_sqe(&dev->uring);
	if (n == 1)
		io_uring_prep_rw(req->write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED, sqe,
				 dev->fd, iov->iov_base, iov->iov_len, offset);
	else
		io_uring_prep_rw(req->write ? OP_WRITEV_FIXED : OP_READV_FIXED, sqe, dev->fd, iov,
				 n, offset);
	sqe->buf_index = i;
	sqe->flags = IOSQE_IO_HARDLINK | IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = (uintptr_t)req | IO;

	sqe = gntdev_sqe(dev, GNTDEV_URING_UNREGISTER, &req->buffer.index, 1);
	sqe->user_data = (uintptr_t)req | UNREGISTER;
	dev->stats[STAT_MAP_CALLS]++;
	dev->stats[STAT_PAGES_MAPPED] += req->nr_segs;
}

static void end_uring(uint64_t user_data, int32_t result)
{
	struct request *req = (struct request *)(user_data & ~(uint64_t)3);

	if (!registers(req)) {
		request_end(req, result);
		return;
	}
	switch (user_data & 3) {
	case REGISTER:		/* failed, and with it the rest of the chain */
		req->released = true;
		request_end(req, result);
		break;
	case IO:		/* failed, or short */
		req->result = result;
		break;
	case UNREGISTER:
		req->released = !result;
		request_end(req, result < 0 ? result : req->result);
	}
}

static void queue_uring(struct request *req)
{
	struct iovec *iov = req->iov + req->first_iov;
	uint32_t n = req->nr_iov - req->first_iov;
	uint64_t offset = req->offset + req->done;
	struct io_uring_sqe *sqe;
	int fd = req->dev->fd;

	if (registers(req)) {
		queue_registered(req);
		return;
	}
	sqe = io_uring_get_sqe(&req->dev->uring);
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
	uint64_t user_data;
	int i, n;

	if (!use_libaio) {
		while (!io_uring_peek_cqe(&dev->uring, &cqe)) {
			user_data = cqe->user_data;
			n = cqe->res;
			io_uring_cqe_seen(&dev->uring, cqe);
			end_uring(user_data, n);
		}
		return;
	}
	n = io_getevents(dev->aio, 0, MAX_REQUESTS, events, &none);
	for (i = 0; i < n; i++)
		request_end(events[i].data, (long)events[i].res);
}
