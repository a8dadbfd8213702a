{{- define "clerk-watcher.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* The name of every object: the release's, with the chart's unless the release has it in its own. */}}
{{- define "clerk-watcher.fullname" -}}
{{- $name := include "clerk-watcher.name" . -}}
{{- $both := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $both | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "clerk-watcher.selectorLabels" -}}
app.kubernetes.io/name: {{ include "clerk-watcher.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Name, labels and annotations of an object. `root` is the whole context; `suffix`, `labels` and `annotations` may be left out. */}}
{{- define "clerk-watcher.metadata" -}}
{{- $chart := .root.Chart -}}
{{- $ours := dict "app.kubernetes.io/version" $chart.AppVersion "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $ours "helm.sh/chart" (printf "%s-%s" $chart.Name $chart.Version | replace "+" "_") -}}
{{- $ours = merge (include "clerk-watcher.selectorLabels" .root | fromYaml) $ours -}}
name: {{ include "clerk-watcher.fullname" .root }}{{ .suffix }}
labels: {{- merge $ours (.labels | default dict) (.root.Values.commonLabels | default dict) | toYaml | nindent 2 }}
{{- with .annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where a ServiceAccount's name is given or one is made, its name. */}}
{{- define "clerk-watcher.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "clerk-watcher.fullname" .) "" .Values.serviceAccount.create) -}}
{{- end }}

{{/* Every path but /metrics, /livez and /readyz, which need no token. */}}
{{- define "clerk-watcher.paths" -}}
{{- range list "/" "/login" "/logout" "/openapi.json" }}
- {path: {{ . }}, pathType: Exact}
{{- end }}
{{- range list "/api" "/deliveries" "/e" "/events" "/executions" "/pipelines" "/problems" "/silences" "/static" }}
- {path: {{ . }}, pathType: Prefix}
{{- end }}
{{- end }}

{{/* Refuse hosts at which the pages would answer 403. `root` is the whole context, `hosts` a list, `value` names where it is from. */}}
{{- define "clerk-watcher.checkHosts" -}}
{{- $http := get (.root.Values.config | default dict) "http" | default dict -}}
{{- $urls := list -}}
{{- range .hosts }}{{ $urls = append $urls (printf "https://%s" .) }}{{ end -}}
{{- $url := $http.public_url | default "" | trimSuffix "/" -}}
{{- if and .root.Values.config (not (has $url $urls)) (not (contains "*" (join " " .hosts))) -}}
{{- fail (printf "`config.http.public_url` must be %s, as `%s`: else the pages answer 403" (join " or " $urls) .value) -}}
{{- end -}}
{{- range .hosts -}}
{{- if and $.root.Values.config (ne $url (printf "https://%s" .)) (not (has . ($http.names | default list))) (not (contains "*" .)) -}}
{{- fail (printf "`config.http.names` must have %s, one of `%s`: else the pages answer 403 there" . $.value) -}}
{{- end -}}
{{- end -}}
{{- end }}
