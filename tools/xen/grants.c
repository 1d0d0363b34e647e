// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest's pages, in one of four ways:
 *
 *	map	a request's pages are mapped for it, by one ioctl and one mmap()
 *	register
 *		they become a registered buffer of the ring for it (io.c), at no address
 *	persist	pages stay mapped once they are; a hash table finds them, and those
 *		that were not used for longest are unmapped beyond a limit
 *	copy	Xen copies between them and a buffer of ours
 *
 * A page that was mapped for one request, or registered, may only be given back to the guest when
 * Xen has released its grant: blkfront disables a disk whose backend still has it
 * mapped. munmap() does not wait for that. Block drivers complete a request before
 * they unpin its pages, and a page that is pinned keeps its grant for another
 * moment. So the response waits until Xen has cleared the bits "reading" and
 * "writing" of each grant, which Xen's own table of the guest shows.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "blkd.h"
#include <xen/memory.h>
#include <xen/sys/gntdev.h>

/* ------------------------------------------------------------- mapping */

void *grants_map(struct device *dev, struct mapping *map, const uint32_t *refs, uint32_t n,
		 bool write)
{
	struct {
		struct ioctl_gntdev_map_grant_ref op;
		struct ioctl_gntdev_grant_ref more[MAX_SEGMENTS];
	} arg;
	struct ioctl_gntdev_unmap_grant_ref unmap = { .count = n };
	struct ioctl_gntdev_grant_ref *ref = arg.op.refs;
	void *addr;
	uint32_t i;

	arg.op.count = n;
	arg.op.pad = 0;
	for (i = 0; i < n; i++) {
		ref[i].domid = dev->domid;
		ref[i].ref = refs[i];
	}
	if (ioctl(dev->gntdev, IOCTL_GNTDEV_MAP_GRANT_REF, &arg))
		return NULL;
	addr = mmap(NULL, (size_t)n * PAGE, write ? PROT_READ | PROT_WRITE : PROT_READ,
		    MAP_SHARED, dev->gntdev, arg.op.index);
	if (addr == MAP_FAILED) {
		unmap.index = arg.op.index;
		ioctl(dev->gntdev, IOCTL_GNTDEV_UNMAP_GRANT_REF, &unmap);
		return NULL;
	}
	map->index = arg.op.index;
	map->pages = n;
	map->left = n;
	dev->stats[STAT_MAP_CALLS]++;
	dev->stats[STAT_PAGES_MAPPED] += n;
	return addr;
}

void grants_unmap(struct device *dev, struct mapping *map, void *addr, uint32_t n)
{
	struct ioctl_gntdev_unmap_grant_ref op = { .index = map->index, .count = map->pages };

	munmap(addr, (size_t)n * PAGE);
	map->left -= n;
	if (!map->left)
		ioctl(dev->gntdev, IOCTL_GNTDEV_UNMAP_GRANT_REF, &op);
}

/* The guest's entry of a grant, or NULL; Xen's table has it if it was ever mapped. */
static volatile struct grant_entry_v1 *table_entry(struct device *dev, uint32_t ref)
{
	uint32_t frame = ref / REFS_PER_FRAME;
	void *addr = NULL;

	if (frame >= MAX_FRAMES)
		return NULL;
	if (!dev->table[frame]) {
		dev->frames[frame] =
			xenforeignmemory_map_resource(dev->foreign, dev->domid,
						      XENMEM_resource_grant_table,
						      XENMEM_resource_grant_table_id_shared,
						      frame, 1, &addr, PROT_READ, 0);
		if (!dev->frames[frame])
			return NULL;
		dev->table[frame] = addr;
	}
	return &dev->table[frame][ref % REFS_PER_FRAME];
}

/* Whether Xen has released all grants of a request whose I/O is done */
bool request_released(const struct request *req)
{
	volatile struct grant_entry_v1 *entry;
	uint32_t i;

	if (req->released || req->dev->data == DATA_COPY || req->dev->persistent)
		return true;
	for (i = 0; i < req->nr_segs; i++) {
		entry = table_entry(req->dev, req->seg[i].gref);
		if (entry && entry->flags & (GTF_reading | GTF_writing))
			return false;
	}
	return true;
}

/* ------------------------------------------------------------- copying */

static int copy(struct device *dev, struct ioctl_gntdev_grant_copy_segment *segs, uint32_t n)
{
	struct ioctl_gntdev_grant_copy op = { .count = n, .segments = segs };
	uint32_t i;

	if (ioctl(dev->gntdev, IOCTL_GNTDEV_GRANT_COPY, &op))
		return -errno;
	for (i = 0; i < n; i++)
		if (segs[i].status != GNTST_okay)
			return -EFAULT;
	dev->stats[STAT_PAGES_COPIED] += n;
	return 0;
}

/* Copies between the request's buffer and the guest. */
static int request_copy(struct request *req, bool to_guest)
{
	struct ioctl_gntdev_grant_copy_segment segs[MAX_SEGMENTS];
	struct blkif_request_segment *seg = req->seg;
	uint8_t *at = req->addr;
	uint32_t i;

	memset(segs, 0, req->nr_segs * sizeof(segs[0]));
	for (i = 0; i < req->nr_segs; i++, seg++) {
		typeof(segs[i].source) *guest = to_guest ? &segs[i].dest : &segs[i].source;
		typeof(segs[i].source) *local = to_guest ? &segs[i].source : &segs[i].dest;

		guest->foreign.ref = seg->gref;
		guest->foreign.offset = seg->first_sect * SECTOR;
		guest->foreign.domid = req->dev->domid;
		local->virt = at;
		segs[i].len = (seg->last_sect - seg->first_sect + 1) * SECTOR;
		segs[i].flags = to_guest ? GNTCOPY_dest_gref : GNTCOPY_source_gref;
		at += segs[i].len;
	}
	return copy(req->dev, segs, req->nr_segs);
}

/* ------------------------------------------------------------- grants that stay mapped */

static struct grant **bucket(struct device *dev, uint32_t ref)
{
	return &dev->buckets[ref % GRANT_BUCKETS];
}

static void grant_free(struct device *dev, struct grant *grant)
{
	struct grant **at = bucket(dev, grant->ref);

	while (*at != grant)
		at = &(*at)->next;
	*at = grant->next;
	dev->nr_grants--;
	if (grant->addr) {
		grants_unmap(dev, grant->map, grant->addr, 1);
		if (!grant->map->left)
			free(grant->map);
	}
	free(grant);
}

/* The last user of a new grant that could not be mapped frees it. */
static void persist_put(struct device *dev, struct grant **grants, uint32_t n)
{
	struct grant *old;

	while (n--) {
		if (--grants[n]->users)
			continue;
		if (grants[n]->addr)
			TAILQ_INSERT_TAIL(&dev->lru, grants[n], lru);
		else
			grant_free(dev, grants[n]);
	}
	while (dev->nr_grants > max_persistent * dev->nr_rings) {
		old = TAILQ_FIRST(&dev->lru);
		if (!old)
			break;
		TAILQ_REMOVE(&dev->lru, old, lru);
		grant_free(dev, old);
		dev->stats[STAT_PAGES_EVICTED]++;
	}
}

/* Finds the grants; those that are new are mapped together. */
static int persist_get(struct device *dev, const uint32_t *refs, struct grant **grants,
		       uint32_t n)
{
	struct grant *missing[MAX_SEGMENTS], *grant, **head;
	uint32_t new_refs[MAX_SEGMENTS], nr_new = 0, i;
	struct mapping *map = NULL;
	uint8_t *addr;

	for (i = 0; i < n; i++) {
		head = bucket(dev, refs[i]);
		for (grant = *head; grant && grant->ref != refs[i]; grant = grant->next)
			;
		if (!grant) {
			grant = calloc(1, sizeof(*grant));
			if (!grant)
				goto fail;
			grant->ref = refs[i];
			grant->next = *head;
			*head = grant;
			dev->nr_grants++;
			new_refs[nr_new] = refs[i];
			missing[nr_new++] = grant;
		} else if (!grant->users) {
			TAILQ_REMOVE(&dev->lru, grant, lru);
		}
		grant->users++;
		grants[i] = grant;
	}
	dev->stats[STAT_PAGES_FOUND] += n - nr_new;
	if (!nr_new)
		return 0;

	map = malloc(sizeof(*map));
	addr = map ? grants_map(dev, map, new_refs, nr_new, true) : NULL;
	if (!addr)
		goto fail;
	for (i = 0; i < nr_new; i++) {
		missing[i]->map = map;
		missing[i]->addr = addr + i * PAGE;
	}
	return 0;

fail:
	free(map);
	persist_put(dev, grants, i);
	return -EFAULT;
}

/* ------------------------------------------------------------- for ring.c */

/* Copies @len bytes from the start of a page of the guest. */
int grants_read(struct device *dev, uint32_t ref, void *to, uint32_t len)
{
	struct ioctl_gntdev_grant_copy_segment seg = { .len = len, .flags = GNTCOPY_source_gref };
	struct grant *grant;

	if (dev->persistent) {
		if (persist_get(dev, &ref, &grant, 1))
			return -EFAULT;
		memcpy(to, grant->addr, len);
		persist_put(dev, &grant, 1);
		return 0;
	}
	seg.source.foreign.ref = ref;
	seg.source.foreign.domid = dev->domid;
	seg.dest.virt = to;
	return copy(dev, &seg, 1);
}

static void add_iov(struct request *req, uint8_t *addr, uint32_t len)
{
	struct iovec *last = req->iov + req->nr_iov - 1;

	if (req->nr_iov && (uint8_t *)last->iov_base + last->iov_len == addr) {
		last->iov_len += len;
	} else {
		req->iov[req->nr_iov].iov_base = addr;
		req->iov[req->nr_iov++].iov_len = len;
	}
}

/* Makes req->iov[] what the I/O is done on. */
int request_get_pages(struct request *req)
{
	struct device *dev = req->dev;
	uint8_t *page;
	uint32_t i;
	int rc = 0;

	req->nr_iov = 0;
	req->released = false;
	for (i = 0; i < req->nr_segs; i++)
		req->refs[i] = req->seg[i].gref;

	if (dev->data == DATA_COPY) {
		req->addr = dev->arena + (req - dev->requests) * MAX_SEGMENTS * PAGE;
		add_iov(req, req->addr, req->bytes);
		return req->write ? request_copy(req, false) : 0;
	}
	if (dev->persistent) {
		rc = persist_get(dev, req->refs, req->grant, req->nr_segs);
	} else if (dev->data == DATA_REGISTER) {
		/* In a registered buffer, addresses are offsets. */
		req->addr = NULL;
	} else {
		req->addr = grants_map(dev, &req->map, req->refs, req->nr_segs, !req->write);
		rc = req->addr ? 0 : -EFAULT;
	}
	for (i = 0; !rc && i < req->nr_segs; i++) {
		page = dev->persistent ? req->grant[i]->addr : req->addr + i * PAGE;
		add_iov(req, page + req->seg[i].first_sect * SECTOR,
			(req->seg[i].last_sect - req->seg[i].first_sect + 1) * SECTOR);
	}
	return rc;
}

/* The I/O is done. */
int request_put_pages(struct request *req)
{
	struct device *dev = req->dev;

	if (dev->data == DATA_COPY)
		return req->write || req->status ? 0 : request_copy(req, true);
	if (dev->persistent)
		persist_put(dev, req->grant, req->nr_segs);
	else if (dev->data != DATA_REGISTER)
		grants_unmap(dev, &req->map, req->addr, req->nr_segs);
	return 0;
}

/* ------------------------------------------------------------- connecting */

/*
 * Mapping without persistence needs the guest's grant table, of version 1: the
 * entry of a ring that is mapped tells whether it is that. Without it data is copied.
 */
static void table_open(struct device *dev, uint32_t ring_ref)
{
	const uint16_t mapped = GTF_permit_access | GTF_reading | GTF_writing;
	volatile struct grant_entry_v1 *entry = NULL;

	dev->foreign = xenforeignmemory_open(NULL, 0);
	if (dev->foreign)
		entry = table_entry(dev, ring_ref);
	if (entry && (entry->flags & mapped) == mapped)
		return;
	say(dev, "the guest's grant table cannot be read: data is copied");
	dev->data = DATA_COPY;
}

/* After the rings are mapped */
int grants_open(struct device *dev, uint32_t ring_ref)
{
	TAILQ_INIT(&dev->lru);
	if (dev->data != DATA_COPY && !dev->persistent)
		table_open(dev, ring_ref);
	if (dev->data != DATA_COPY)
		return 0;
	dev->arena = mmap(NULL, (size_t)MAX_REQUESTS * MAX_SEGMENTS * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (dev->arena == MAP_FAILED) {
		dev->arena = NULL;
		return -errno;
	}
	/* Each request has a MiB of it, and most use little. */
	madvise(dev->arena, (size_t)MAX_REQUESTS * MAX_SEGMENTS * PAGE, MADV_NOHUGEPAGE);
	return 0;
}

/* No request is in flight. */
void grants_close(struct device *dev)
{
	struct grant *grant;
	uint32_t i;

	while (dev->lru.tqh_last && (grant = TAILQ_FIRST(&dev->lru))) {
		TAILQ_REMOVE(&dev->lru, grant, lru);
		grant_free(dev, grant);
	}
	for (i = 0; i < MAX_FRAMES; i++) {
		if (dev->table[i])
			xenforeignmemory_unmap_resource(dev->foreign, dev->frames[i]);
		dev->table[i] = NULL;
	}
	if (dev->foreign)
		xenforeignmemory_close(dev->foreign);
	dev->foreign = NULL;
	if (dev->arena)
		munmap(dev->arena, (size_t)MAX_REQUESTS * MAX_SEGMENTS * PAGE);
	dev->arena = NULL;
}
