/* What the files of control/ say to each other. */
#pragma once

#include <jansson.h>

#include "control/control.h"
#include "debug/monitor.h"

/* The monitor's answer of one request, as it is said. */
struct capture {
	char *text;
	size_t length, capacity;
	bool is_cut;
};

struct client {
	int fd; /* -1: free */
	struct control *control;
	char *line; /* the part of a request that has come; CONTROL_LINE_BYTES from the first on */
	size_t line_length;
	char *answer; /* what is still to be sent; NULL: nothing */
	size_t answer_length, answer_sent;
	uint64_t last;		 /* the control's count of requests at its last one */
	bool is_leaving;	 /* hung up when the answer is sent */
	struct monitor *monitor; /* NULL until asked for; keeps its vcpu */
	struct capture capture;
};

struct control {
	struct vm *vm; /* borrowed */
	struct control_host host;
	char name[CONTROL_NAME_BYTES];
	char path[CONTROL_PATH_BYTES];
	int lock, listening;
	int spare; /* given up for a moment to turn somebody away when the process has no file left
		    */
	uint64_t start_ns;
	uint64_t request_count;
	struct client clients[CONTROL_CLIENTS_MAX];
};

/* request.c: what a line asks for. `command` is an index into control_commands. */
struct request {
	json_t *document;
	const struct control_command *command;
	json_t *id; /* borrowed from the document; NULL: none */
};

enum control_field_kind { FIELD_TEXT, FIELD_SWITCH, FIELD_COUNT };

struct control_field {
	const char *name; /* NULL after the last */
	enum control_field_kind kind;
	bool is_required;
};

#define CONTROL_FIELDS_MAX 4

/* A failure as a client gets it: a word for programs, a sentence for people. */
struct control_failure {
	const char *code;
	struct error error;
};

struct control_command {
	const char *name;
	struct control_field fields[CONTROL_FIELDS_MAX];
	/* The "result"; NULL with *f filled. */
	json_t *(*run)(struct client *client, const json_t *request, struct control_failure *f);
};

extern const struct control_command control_commands[];
extern const size_t control_command_count;

/* False with *f filled; r->id is set as soon as it is known. request_fini() in either case. */
bool request_parse(struct request *r, const char *line, size_t length, struct control_failure *f);
void request_fini(struct request *r);

/* Carries out one line. The answer with its line's end, from malloc; NULL without memory. */
char *control_answer(struct client *client, const char *line, size_t length, size_t *out_length);
