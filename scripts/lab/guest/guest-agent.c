// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest's side of "$DOMU ..." (see dom0-run --help): grants pages to dom0,
 * hashes them, takes them back, runs programs.
 *
 * A request is words, each ended by a NUL. The answer is the exit status of
 * "$DOMU", or "E" for an error, on the first line, and the output after it.
 * Programs run in a child which sends the answer itself, so that pages can be
 * granted and hashed meanwhile.
 *
 * Every page is mapped by a VMA of its own, and only this VMA holds its grant
 * (gntalloc ends a grant that neither the file nor a VMA holds), so that munmap()
 * of one page ends one grant.
 */
#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <xen/gntalloc.h>
#include "domu-message.h"

#define PAGE	4096UL
#define MAX_REF	65536

/* By reference; NULL: not granted. */
static void *grants[MAX_REF];

static void fail(FILE *out, const char *what, const char *why)
{
	rewind(out);
	fprintf(out, "E\n%s: %s\n", what, why);
}

static void **find_grant(const char *word)
{
	char *end;
	unsigned long ref = strtoul(word, &end, 0);

	if (!*word || *end || ref >= MAX_REF || !grants[ref])
		return NULL;
	return &grants[ref];
}

static void do_grant(FILE *out, char **word)
{
	struct ioctl_gntalloc_dealloc_gref dealloc;
	struct ioctl_gntalloc_alloc_gref *op;
	unsigned long n, i;
	int fd;

	n = strtoul(word[0], NULL, 0);
	if (!n || (word[1] && strcmp(word[1], "ro"))) {
		fail(out, "grant", "usage: grant N [ro]");
		return;
	}

	fd = open("/dev/xen/gntalloc", O_RDWR | O_CLOEXEC);
	op = calloc(1, sizeof(*op) + n * sizeof(op->gref_ids[0]));
	if (fd < 0 || !op) {
		fail(out, "/dev/xen/gntalloc", strerror(errno));
		goto out;
	}
	op->count = n;
	op->flags = word[1] ? 0 : GNTALLOC_FLAG_WRITABLE;
	if (ioctl(fd, IOCTL_GNTALLOC_ALLOC_GREF, op)) {
		fail(out, "grant", strerror(errno));
		goto out;
	}

	fprintf(out, "0\n");
	for (i = 0; i < n; i++) {
		unsigned int ref = op->gref_ids[i];
		void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
				  fd, op->index + i * PAGE);

		if (page == MAP_FAILED || ref >= MAX_REF ||
		    getrandom(page, PAGE, GRND_INSECURE) != PAGE) {
			fail(out, "a granted page", strerror(errno));
			break;
		}
		/* A long "run" must not hold what is released meanwhile. */
		madvise(page, PAGE, MADV_DONTFORK);
		grants[ref] = page;
		fprintf(out, "%u%c", ref, i + 1 < n ? ' ' : '\n');
	}

	dealloc.index = op->index;
	dealloc.count = n;
	if (ioctl(fd, IOCTL_GNTALLOC_DEALLOC_GREF, &dealloc))
		fail(out, "gntalloc", strerror(errno));
out:
	free(op);
	if (fd >= 0)
		close(fd);
}

static void do_release(FILE *out, char **word)
{
	void **grant;

	for (; *word; word++) {
		grant = find_grant(*word);
		if (grant) {
			munmap(*grant, PAGE);
			*grant = NULL;
		}
	}
	fprintf(out, "0\n");
}

/* Writes the pages into a file, for a child does not have them. */
static bool save_pages(FILE *out, char **word, const char *file)
{
	FILE *pages = fopen(file, "w");
	bool saved = pages;

	for (; saved && *word; word++)
		saved = fwrite(*find_grant(*word), PAGE, 1, pages) == 1;
	if (pages && fclose(pages))
		saved = false;
	if (!saved)
		fail(out, file, strerror(errno));
	return saved;
}

static void answer(struct xs_handle *xs, const char *slot, FILE *out, char **text, size_t *len)
{
	fflush(out);
	if (message_send(xs, "data/rsp", slot, *text, *len))
		return;
	fail(out, "the answer", "it does not fit into xenstore");
	fflush(out);
	message_send(xs, "data/rsp", slot, *text, *len);
}

/* In a child. The output is kept in a file until the status is known. */
static void run(const char *slot, char **word)
{
	char buf[4096], *text;
	FILE *out, *output = tmpfile();
	int status, null;
	size_t len, n;
	pid_t pid;

	out = open_memstream(&text, &len);
	null = open("/dev/null", O_RDONLY);
	if (!output || !out)
		_exit(1);
	pid = fork();
	if (!pid) {
		dup2(null, 0);
		dup2(fileno(output), 1);
		dup2(fileno(output), 2);
		execvp(word[0], word);
		dprintf(2, "%s: %s\n", word[0], strerror(errno));
		_exit(127);
	}
	waitpid(pid, &status, 0);
	fprintf(out, "%d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	rewind(output);
	while ((n = fread(buf, 1, sizeof(buf), output)) > 0)
		fwrite(buf, 1, n, out);
	answer(xs_open(0), slot, out, &text, &len);
	_exit(0);
}

static void handle(struct xs_handle *xs, const char *slot)
{
	char path[256], file[64], *req, *text, **word;
	size_t len, text_len, at;
	char **program = NULL;
	int words = 0, i;
	FILE *out;

	req = message_receive(xs, "data/req", slot, &len);
	if (!req)
		return;
	snprintf(path, sizeof(path), "data/req/%s", slot);
	xs_rm(xs, XBT_NULL, path);

	word = calloc(len + 5, sizeof(*word));
	out = open_memstream(&text, &text_len);
	if (!word || !out)
		abort();
	for (at = 0; at < len; at += strlen(req + at) + 1)
		word[words++] = req + at;

	for (i = 1; i < words && (!strcmp(word[0], "sha256") || !strcmp(word[0], "release")); i++)
		if (!find_grant(word[i])) {
			fail(out, word[i], "no grant of this guest");
			goto answer;
		}
	if (words < 2) {
		fail(out, words ? word[0] : "request", "it needs arguments");
	} else if (!strcmp(word[0], "grant")) {
		do_grant(out, word + 1);
	} else if (!strcmp(word[0], "release")) {
		do_release(out, word + 1);
	} else if (!strcmp(word[0], "sha256")) {
		snprintf(file, sizeof(file), "/tmp/%s", slot);
		if (save_pages(out, word + 1, file)) {
			program = word;
			word[0] = "sh";
			word[1] = "-c";
			word[2] = "sha256sum <$0 | cut -c -64; rm $0";
			word[3] = file;
			word[4] = NULL;
		}
	} else if (!strcmp(word[0], "run")) {
		program = word + 1;
	} else {
		fail(out, word[0], "unknown request");
	}
	if (program) {
		/* Twice, so that init reaps it. */
		if (!fork()) {
			if (!fork())
				run(slot, program);
			_exit(0);
		}
		wait(NULL);
		goto out;
	}
answer:
	answer(xs, slot, out, &text, &text_len);
out:
	fclose(out);
	free(text);
	free(req);
	free(word);
}

int main(void)
{
	char path[XENSTORE_PAYLOAD_MAX], slot[32];
	struct xs_handle *xs = xs_open(0);
	int watch = watch_open("data/req"), end;

	if (xs && watch >= 0 && xs_write(xs, XBT_NULL, "data/ready", "1", 1))
		while (watch_read(watch, path))
			if (sscanf(path, "data/req/%31[0-9]%n", slot, &end) == 1 && !path[end])
				handle(xs, slot);
	perror("guest-agent: xenstore");
	return 1;
}
