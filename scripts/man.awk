# Writes the C libraries' man pages from their headers: what a comment promises stands there once.
#
#   awk -v out=DIRECTORY -v version=0.1.0 -v date=2026-01-31 -f scripts/man.awk HEADER...
#
# A comment and the functions declared right below it are one page, which each of them has. Structures and
# enums are one page, memwatch_types(3); the head of memwatch.h is memwatch(3), that of another header
# memwatch_HEADER(3).

function roff(text) {
	gsub(/\\/, "\\e", text)
	return (text ~ /^[.']/ ? "\\&" : "") text
}

# Words of code stand in backquotes; lines have at most 76 characters.
function prose(text,    n, words, i, line, result) {
	gsub(/\\/, "\\e", text)
	while (match(text, /`[^`]+`/))
		text = substr(text, 1, RSTART - 1) "\\fI" substr(text, RSTART + 1, RLENGTH - 2) "\\fR" \
			substr(text, RSTART + RLENGTH)
	n = split(text, words, " ")
	line = words[1]
	for (i = 2; i <= n; i++) {
		if (length(line) + length(words[i]) < 76) {
			line = line " " words[i]
			continue
		}
		result = result (line ~ /^[.']/ ? "\\&" : "") line "\n"
		line = words[i]
	}
	return result (line ~ /^[.']/ ? "\\&" : "") line
}

function begin(title, names, about) {
	page = out "/" title ".3"
	printf ".TH %s 3 %s \"memwatch %s\" \"C Library\"\n", toupper(title), date, version > page
	printf ".SH NAME\n%s \\- %s\n", names, roff(about) > page
	fresh = 1
}

function end(others) {
	printf ".SH SEE ALSO\n%s", others > page
	close(page)
}

function filled(text) {
	if (verbatim)
		print ".EE" > page
	verbatim = fresh = 0
	print prose(text) > page
}

function as_is(text) {
	if (!verbatim)
		print (fresh ? "" : ".PP\n") ".EX" > page
	verbatim = 1
	print roff(text) > page
}

# What a comment says at first, as one line of an index: up to the first stop, in lower case.
function first_words(text) {
	if (match(text, /[.;:]( |$)/))
		text = substr(text, 1, RSTART - 1)
	gsub(/`/, "", text)
	return text ~ /^[A-Z][a-z]/ ? tolower(substr(text, 1, 1)) substr(text, 2) : text
}

# A comment's text: one line, without its marks.
function plain(comment) {
	gsub(/(^|\n)[ \t]*\/?\*+\/?/, " ", comment)
	gsub(/\*\//, "", comment)
	gsub(/[ \t\n]+/, " ", comment)
	sub(/^ /, "", comment)
	sub(/ $/, "", comment)
	return comment
}

# --- heads of headers -------------------------------------------------------------------------------------------------

# "FILE -- about" or, below it, a title in capitals with its text, text behind titles, and what stays as it is laid out.
function head_line(line,    title) {
	if (line ~ /^[a-z]+\.h -- /) {
		sub(/^[a-z]+\.h -- /, "", line)
		title = header == "memwatch" ? header : "memwatch_" header
		begin(title, title, first_words(line))
		printf ".SH SYNOPSIS\n.B #include <memwatch/%s.h>\n.SH DESCRIPTION\n", included > page
		filled(line)
	} else if (match(line, /^[A-Z][A-Z ]*[A-Z]($|  )/)) {
		title = substr(line, 1, RLENGTH)
		sub(/ *$/, "", title)
		if (verbatim)
			print ".EE" > page
		verbatim = 0
		print ".SH " title > page
		fresh = 1
		line = substr(line, RLENGTH + 1)
		sub(/^ */, "", line)
		if (line != "")
			filled(line)
	} else if (line == "") {
		if (verbatim)
			print "" > page
	} else if (match(line, /^ *[^ ]/) && (RLENGTH == 1 || RLENGTH == 13)) {
		filled(substr(line, RLENGTH))
	} else {
		as_is(line)
	}
}

function head_end() {
	if (verbatim)
		print ".EE" > page
	verbatim = 0
	end(header == "memwatch" ? ".BR memwatch_types (3)\n" : ".BR memwatch (3)\n")
}

# --- functions --------------------------------------------------------------------------------------------------------

# As programs call it: a header's inline function adds the structure's size.
function declared(text) {
	gsub(/[ \t\n]+/, " ", text)
	sub(/^MEMWATCH_API /, "", text)
	if (text ~ /_sized\(/) {
		sub(/_sized\(/, "(", text)
		sub(/, size_t struct_bytes\)/, ")", text)
	}
	match(text, /memwatch_[a-z0-9_]+\(/)
	names[++n_functions] = substr(text, RSTART, RLENGTH - 1)
	synopses[n_functions] = text
}

function functions_end(    i, k, all) {
	for (i = 1; i <= n_functions; i++)
		all = all (i > 1 ? ", " : "") names[i]
	for (i = 1; i <= n_functions; i++) {
		begin(names[i], all, first_words(plain(comment)))
		printf ".SH SYNOPSIS\n.nf\n.B #include <memwatch/%s.h>\n.PP\n", included > page
		for (k = 1; k <= n_functions; k++)
			print ".B " roff(synopses[k]) > page
		printf ".fi\n.SH DESCRIPTION\n%s\n", prose(plain(comment)) > page
		end(".BR memwatch (3),\n.BR memwatch_types (3)\n")
	}
	n_functions = 0
}

# --- the way through a header -----------------------------------------------------------------------------------------

FNR == 1 {
	functions_end()
	header = FILENAME
	sub(/.*\//, "", header)
	sub(/\.h$/, "", header)
	included = header ~ /^(types|stats|watch)$/ ? "memwatch" : header
	in_head = 1
	comment = ""
	next
}
in_head {
	if (/\*\//) {
		in_head = 0
		head_end()
	} else {
		sub(/^ \* ?/, "")
		head_line($0)
	}
	next
}
/^$/ && !in_comment && !in_type { functions_end(); comment = ""; next }
/^\/\* ---/ { functions_end(); comment = ""; next }
/^\/\*/ { functions_end(); comment = $0; in_comment = !/\*\//; next }
in_comment { comment = comment "\n" $0; in_comment = !/\*\//; next }
/^MEMWATCH_API / { declaration = $0 }
declaration != "" {
	if (!/^MEMWATCH_API /)
		declaration = declaration " " $0
	if (/;/) {
		declared(declaration)
		declaration = ""
	}
	next
}
/^(struct|enum|union)( [a-z_]+)? \{/ { types = types (comment == "" ? "" : comment "\n"); in_type = 1; comment = "" }
in_type {
	types = types $0 "\n"
	if (/\}.*;/)
		types = types "\n"
	in_type = !/^\}.*;|\{.*\};/
	next
}
/^#define MEMWATCH_HAS/ { types = types comment "\n" $0 " ...\n\n"; comment = "" }
END {
	functions_end()
	begin("memwatch_types", "memwatch_types", "structures and enums of the memwatch libraries")
	print ".SH SYNOPSIS\n.B #include <memwatch/memwatch.h>\n.SH DESCRIPTION\n.EX" > page
	sub(/\n+$/, "", types)
	n = split(types, lines, "\n")
	for (i = 1; i <= n; i++)
		print roff(lines[i]) > page
	print ".EE" > page
	end(".BR memwatch (3)\n")
}
